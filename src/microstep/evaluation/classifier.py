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
from microstep.components.model.metadata import parse_json, parse_normalization
from microstep.config.allowlist import Allowlist
from microstep.config.experiment import finds_batch_size, micro_batch_size
from microstep.config.schema import TrainConfig
from microstep.errors import ConfigError
from microstep.evaluation.evaluate import Overrides, load_run, load_weights, read_weights
from microstep.run.saved_run import SavedRun
from microstep.run.weights import SavedWeights, parse_fitted, read_exported_weights, read_fitted
from microstep.training import device as machine
from microstep.training.allocator import configure_allocator
from microstep.training.builders import EVALUATION_FACTOR, INITIALIZATION_KEY
from microstep.training.instantiation import build_component
from microstep.types.data import SupportsAnswers
from microstep.types.protocols import Dataset, Precision, Task
from microstep.utils.randomness import reseed

NO_CLASSIFIER = "its weights do not say that they classify images"
IMAGE_RUN_REMEDY = "give a run that classifies grayscale or color images"
EXPORTED_REMEDY = "give the model.safetensors of a run that classifies images, or run=RUN_DIR"
EXPORTED_PARTS = {"precision": {"_target_": "microstep.components.precision.full"}, "dataset": {}, "batch_size": 16}
MAX_SIDE = 2**14  #: most pixels of a side; a larger image would exhaust the memory


@dataclass(frozen=True)
class ImageFacts:
    """The classes of a classifier, and what it takes to read its images."""

    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    decoder: Decoder | OwnDecoder


@dataclass(frozen=True)
class Classifier:
    """A model of images, and what it takes to apply it to files."""

    model: nn.Module
    precision: Precision
    task: SupportsAnswers
    outputs: int  #: numbers that the model returns for an image
    decoder: Decoder | OwnDecoder
    normalizer: Normalizer
    device: torch.device
    batch_size: int
    num_workers: int  #: most processes that decode images
    epoch: int  #: of the weights


def load_classifier(
    run_dir: Path, allowlist: Allowlist, device: str | None, checkpoint: str, overrides: Overrides | None = None
) -> Classifier:
    """Load the classifier of a run. For the arguments and errors see `load_run`.

    The data set is built only if it decodes images by code of its own, or if the weights don't say how to decode.
    """
    saved = SavedRun.read(run_dir, overrides=overrides)
    config, weights = saved.config(allowlist), read_weights(run_dir, checkpoint)
    if says_decoding(weights.metadata):
        facts = parse_image_facts(weights.metadata, config, saved.subject)
    else:
        components, _ = load_run(run_dir, allowlist, device, checkpoint, overrides)
        facts = get_image_facts(components.dataset, saved.subject)
    fitted = read_fitted(weights, run_dir)
    return build_classifier(config, facts, weights, fitted, allowlist, device, saved.record.precision, saved.subject)


def load_exported_classifier(
    file: Path, allowlist: Allowlist, device: str | None, overrides: Overrides | None = None
) -> Classifier:
    """Load the classifier in a model.safetensors, in fp32.

    Raises:
        ConfigError: if the file holds no classifier of images, or does not say how images are decoded.
        CheckpointRefused: if the file is damaged.
    """
    subject = f"weights={file}"
    weights = read_exported_weights(file, subject, EXPORTED_REMEDY)
    if not says_decoding(weights.metadata):
        raise ConfigError(subject, "it does not say how images are decoded", "give run=RUN_DIR instead")
    nodes = {"model": parse_json(weights.metadata, "architecture", dict)}
    nodes["task"] = parse_json(weights.metadata, "task", dict)
    nodes["task"].pop("loss", None)  # not needed, and it may be a function that is unknown here
    allowlist.check_resolvers(nodes, subject)
    try:
        config = OmegaConf.merge(OmegaConf.structured(TrainConfig), EXPORTED_PARTS, nodes)
        OmegaConf.resolve(config)
    except Exception:  # OmegaConf raises many kinds
        raise ConfigError(subject, "its metadata describe no model", EXPORTED_REMEDY) from None
    assert isinstance(config, DictConfig)
    for key, value in (overrides or {}).items():
        OmegaConf.update(config, key, value, force_add=True)
    facts = parse_image_facts(weights.metadata, config, subject)
    fitted = parse_fitted(weights.metadata)
    return build_classifier(config, facts, weights, fitted, allowlist, device, None, subject)


def says_decoding(metadata: Mapping[str, Any]) -> bool:
    """Return whether the metadata of weights say all that decoding an image needs. Those of 0.1.0 do not."""
    return "fit" in metadata and metadata["fit"] != OWN_FIT


def parse_image_facts(metadata: Mapping[str, Any], config: DictConfig, subject: str) -> ImageFacts:
    """Return the facts in the metadata of weights. Raise ConfigError if they are missing or malformed."""
    names, shape = parse_json(metadata, "class_names", list), parse_json(metadata, "input_shape", list)
    mean, std = parse_normalization(metadata) or ((), ())
    is_named = all(isinstance(name, str) for name in names)  # a regression has none
    is_sized = len(shape) == 3 and all(type(side) is int and 0 < side <= MAX_SIDE for side in shape)
    if not (is_named and is_sized and shape[0] == len(mean)):
        raise ConfigError(subject, NO_CLASSIFIER, IMAGE_RUN_REMEDY)
    channels, height, width = shape
    decoder = Decoder(height, width, channels, config.dataset.get("max_pixels", MAX_PIXELS), metadata["fit"])
    return ImageFacts(tuple(names), mean, std, decoder)


def get_image_facts(dataset: Dataset, subject: str) -> ImageFacts:
    """Return the facts of a data set of images. Raise ConfigError if it is none, or can't decode a file."""
    if not isinstance(dataset, ImageDataset):
        raise ConfigError(subject, "the run's data are not images", IMAGE_RUN_REMEDY)
    if dataset.file_decoder is None:
        reason = "the data set decodes its images itself, and does not say how"
        raise ConfigError(subject, reason, "let it give image_dataset(…, decoder=…), as docs/extending.md says")
    normalization = dataset.normalization
    return ImageFacts(dataset.facts["class_names"], normalization.mean, normalization.std, dataset.file_decoder)


def build_classifier(
    config: DictConfig,
    facts: ImageFacts,
    weights: SavedWeights,
    fitted: Mapping[str, Any],
    allowlist: Allowlist,
    device_name: str | None,
    precision_name: str | None,
    subject: str,
) -> Classifier:
    names, decoder = facts.class_names, facts.decoder
    if isinstance(decoder, Decoder) and decoder.channels not in (1, 3):
        raise ConfigError(subject, f"the run's images have {decoder.channels} channels", IMAGE_RUN_REMEDY)
    configure_allocator(config.allocator)
    machine.configure_torch(config.threads, config.deterministic)
    device = machine.choose_device(device_name or config.device)
    available = {"class_names": names, "num_classes": len(names), "input_shape": decoder.shape, "device": device}
    available |= {"fitted": fitted, "train_targets": torch.arange(len(names))}  # one of each
    task = build_component(config, "task", Task, allowlist, **available)
    if not isinstance(task, SupportsAnswers):
        raise ConfigError(subject, f"the run's task is {type(task).__name__}, which has no `answer`", IMAGE_RUN_REMEDY)
    available["num_classes"] = outputs = getattr(task, "outputs", len(names))
    if not outputs:
        raise ConfigError(subject, NO_CLASSIFIER, IMAGE_RUN_REMEDY)
    reseed(device, config.seed, INITIALIZATION_KEY)
    model = build_component(config, "model", nn.Module, allowlist, **available, load_weights=False)
    precision = build_component(config, "precision", Precision, allowlist, device=device, saved_name=precision_name)
    load_weights(model := precision.prepare(model), weights)
    normalizer = Normalizer(decoder.scale, facts.mean, facts.std, device)
    size = 16 if finds_batch_size(config) else micro_batch_size(config)
    batch_size, workers = EVALUATION_FACTOR * size, worker_count(config.num_workers)
    return Classifier(model, precision, task, outputs, decoder, normalizer, device, batch_size, workers, weights.epoch)
