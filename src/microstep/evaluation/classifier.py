"""Loads a classifier of images from a run, or from exported weights alone. Neither needs the training images."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from microstep.components.dataset import ImageDataset
from microstep.components.dataset.decoding import MAX_PIXELS, OWN_FIT, Decoder, OwnDecoder
from microstep.components.dataset.normalization import Normalizer
from microstep.components.dataset.workers import worker_count
from microstep.components.model.metadata import ImageFacts, parse_image_facts, parse_json
from microstep.components.task import Classification
from microstep.config.allowlist import Allowlist
from microstep.config.experiment import WEIGHTS_FILENAME, micro_batch_size
from microstep.config.schema import TrainConfig
from microstep.config.targets import current
from microstep.errors import ConfigError
from microstep.evaluation.evaluate import Overrides, load_run, load_weights, read_weights
from microstep.run.saved_run import SavedRun
from microstep.run.weights import SavedWeights, read_exported_weights, read_metadata, weights_file
from microstep.training import device as machine
from microstep.training.builders import EVALUATION_FACTOR, INITIALIZATION_KEY, build_component
from microstep.types.protocols import Precision, Task
from microstep.utils.randomness import reseed

IMAGE_RUN_REMEDY = "give a run that classifies grayscale or color images"
EXPORTED_REMEDY = "give the model.safetensors of a run that classifies images, or run=RUN_DIR"
OWN_DECODER_REASON = "the data set decodes its images itself, and does not say how"
OWN_DECODER_REMEDY = "let it give image_dataset(…, decoder=…), as docs/extending.md says"
COMPONENTS = "microstep.components"
EXPORTED_PARTS = {"precision": {"_target_": f"{COMPONENTS}.precision.full"}, "dataset": {}, "batch_size": 16}


@dataclass(frozen=True)
class Classifier:
    """A model of images, and what it takes to read them."""

    model: nn.Module
    precision: Precision
    class_names: tuple[str, ...]
    decoder: Decoder | OwnDecoder
    normalizer: Normalizer
    device: torch.device
    batch_size: int
    num_workers: int  #: most processes that decode images
    epoch: int  #: of the weights


def load_classifier(
    run_dir: Path, allowlist: Allowlist, device: str | None, checkpoint: str, overrides: Overrides
) -> Classifier:
    """Load the classifier of a run. For the arguments and errors see `load_run`.

    The data set is built only if it decodes images by code of its own, or if the run recorded nothing of its images.
    """
    saved = SavedRun.read(run_dir, overrides=overrides)
    config, weights, own = saved.config(allowlist), read_weights(run_dir, checkpoint), None
    metadata = weights.metadata or read_metadata(run_dir / WEIGHTS_FILENAME)
    if not is_self_contained(metadata, config):
        _, components, _ = load_run(run_dir, allowlist, device, checkpoint, overrides)
        if not isinstance(dataset := components.dataset, ImageDataset):
            raise ConfigError(saved.subject, "the run's data are not images", IMAGE_RUN_REMEDY)
        metadata, own = weights_file(run_dir, config, dataset, "").metadata, dataset.file_decoder
    return build_classifier(config, metadata, weights, allowlist, device, saved.record.precision, saved.subject, own)


def load_exported_classifier(file: Path, allowlist: Allowlist, device: str | None, overrides: Overrides) -> Classifier:
    """Load the classifier in a model.safetensors, in fp32.

    Raises:
        ConfigError: if the file holds no classifier of images, or its images are decoded by code of their data set.
        CheckpointRefused: if the file is damaged.
    """
    subject = f"weights={file}"
    weights = read_exported_weights(file, subject, EXPORTED_REMEDY)
    if weights.metadata.get("fit") == OWN_FIT:
        raise ConfigError(subject, OWN_DECODER_REASON, "give run=RUN_DIR instead")
    task = parse_json(weights.metadata, "task") or {"_target_": f"{COMPONENTS}.task.Classification"}
    parts = {"model": parse_json(weights.metadata, "architecture"), "task": task, **EXPORTED_PARTS}
    allowlist.check_resolvers(parts, subject)
    try:
        if not (isinstance(parts["model"], dict) and isinstance(task, dict)):
            raise TypeError
        config = OmegaConf.merge(OmegaConf.structured(TrainConfig), parts)
        OmegaConf.resolve(config)
        for key, value in overrides.items():
            OmegaConf.update(config, key, value, force_add=True)
    except Exception:  # OmegaConf raises many kinds
        raise ConfigError(subject, "its metadata describe no model", EXPORTED_REMEDY) from None
    assert isinstance(config, DictConfig)
    return build_classifier(config, weights.metadata, weights, allowlist, device, None, subject)


def is_self_contained(metadata: Mapping[str, Any], config: DictConfig) -> bool:
    """Return whether the metadata of a run say all that decoding an image needs. 0.1.0 did not name the decoder."""
    ours = current(str(config.dataset.get("_target_"))).startswith(f"{COMPONENTS}.")
    fit = metadata.get("fit", "crop" if ours else OWN_FIT)
    return fit != OWN_FIT and parse_image_facts(metadata) is not None


def build_classifier(
    config: DictConfig,
    metadata: Mapping[str, Any],
    weights: SavedWeights,
    allowlist: Allowlist,
    device_name: str | None,
    precision_name: str | None,
    subject: str,
    own_decoder: Any = None,
) -> Classifier:
    facts = parse_image_facts(metadata)
    if facts is None:
        raise ConfigError(subject, "its weights do not say that they classify images", IMAGE_RUN_REMEDY)
    decoder, scale = make_decoder(facts, metadata, config, own_decoder, subject)
    machine.configure_torch(config.threads, config.deterministic)
    device = machine.choose_device(device_name or config.device)
    available = {**facts.arguments(), "device": device}
    task = build_component(config, "task", Task, allowlist, **available)
    if not isinstance(task, Classification):
        raise ConfigError(subject, f"the run's task is {type(task).__name__}, not Classification", IMAGE_RUN_REMEDY)
    reseed(device, config.seed, INITIALIZATION_KEY)
    model = build_component(config, "model", nn.Module, allowlist, **available, load_weights=False)
    precision = build_component(config, "precision", Precision, allowlist, device=device, saved_name=precision_name)
    load_weights(model := precision.prepare(model), weights)
    normalizer = Normalizer(scale, facts.mean, facts.std, device)
    batch_size, workers = EVALUATION_FACTOR * micro_batch_size(config), worker_count(config.num_workers)
    return Classifier(
        model, precision, facts.class_names, decoder, normalizer, device, batch_size, workers, weights.epoch
    )


def make_decoder(
    facts: ImageFacts, metadata: Mapping[str, Any], config: DictConfig, own: Any, subject: str
) -> tuple[Decoder | OwnDecoder, float]:
    """Return the decoder of a run, and the pixel value that means 1.0 in what it returns."""
    (channels, height, width), fit = facts.shape, metadata.get("fit", "crop")
    if fit == OWN_FIT:
        if own is None:
            raise ConfigError(subject, OWN_DECODER_REASON, OWN_DECODER_REMEDY)
        return OwnDecoder(own, facts.shape), float(metadata.get("scale", 255))
    if channels not in (1, 3):
        raise ConfigError(subject, f"the run's images have {channels} channels", IMAGE_RUN_REMEDY)
    return Decoder(height, width, channels, config.dataset.get("max_pixels", MAX_PIXELS), fit), 255.0
