"""Exports the model of a run to a file that needs no microstep, and checks that it predicts the same."""

import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from microstep.components.dataset import ImageDataset
from microstep.components.dataset.decoding import OWN_FIT
from microstep.components.dataset.normalization import Normalizer
from microstep.config.allowlist import Allowlist
from microstep.errors import ConfigError, MicrostepError, format_error
from microstep.evaluation.evaluate import Overrides, load_run, missing_split_error, refuse_link
from microstep.run.layout import get_report_path
from microstep.run.saved_run import SavedRun
from microstep.training.components import Components
from microstep.training.device import torch_errors
from microstep.types.data import Batch
from microstep.utils.files import write_directory
from microstep.utils.json_files import write_json
from microstep.utils.progress_bar import ProgressBars

Predictions = Mapping[str, Tensor]
Program = Callable[[Tensor], Predictions]  #: takes N × H × W × C of uint8
TOLERANCE = 1e-3  #: largest difference of a probability, or of a number in standard deviations of the target
MODES = {1: "L", 3: "RGB"}  #: Pillow's mode of images, by number of channels


class PixelModel(nn.Module):
    """Predicts from pixels (N × H × W × C, uint8). Normalization and the task's predictions are part of it."""

    def __init__(self, model: nn.Module, normalizer: Normalizer, task: Any) -> None:
        super().__init__()
        self.model, self.normalizer, self.task = model, normalizer, task
        self.factor, self.offset = nn.Buffer(normalizer.factor), nn.Buffer(normalizer.offset)

    def forward(self, images: Tensor) -> Any:
        return self.task.predict(self.model(images.permute(0, 3, 1, 2).float() * self.factor + self.offset))

    def predict_as_evaluated(self, images: Tensor) -> Any:
        """Return the predictions as `evaluate.py input=` computes them in fp32."""
        return self.task.predict(self.model(self.normalizer(images.permute(0, 3, 1, 2))).double())


@torch_errors()
def export_run(
    run_dir: Path, export: str, split: str, checkpoint: str, allowlist: Allowlist, bars: ProgressBars, given: Overrides
) -> tuple[Path, Mapping[str, Any]]:
    """Write the model of a run and certificate.json into `export/<format>/` of its directory.

    Returns:
        The file, and the certificate: a comparison of its bytes with the run's model in fp32 on all images of a split.

    Raises:
        ConfigError: if the run's data are no images, or torch can't export the model; see also `evaluate_run`.
        MicrostepError: if a prediction differs by more than `TOLERANCE`. Nothing is written.
    """
    directory = refuse_link(run_dir / "export" / get_report_path(export, checkpoint).name)
    components, epoch = load_run(run_dir, allowlist, "cpu", checkpoint, given)
    if split not in (splits := components.loaders.splits) and split != "test":
        raise missing_split_error(split, splits)
    split, record, loaders = split if split in splits else "val", SavedRun.read(run_dir).record, components.loaders
    model = make_pixel_model(components, export)
    origin = {"experiment_hash": record.experiment_hash, "checkpoint": checkpoint, "epoch": epoch}
    about = describe_input(components.dataset) | origin | {"dataset": record.choices.get("dataset")}
    metadata = {key: value if isinstance(value, str) else json.dumps(value) for key, value in about.items()}
    content, program = convert(model, metadata, export)
    name, runtime, *_ = FORMATS[export]
    result = {"file": name, "bytes": len(content), "sha256": sha256(content).hexdigest(), **origin, "split": split}
    batches = bars.samples(loaders.evaluation(split), split, len(splits[split]), lambda b: len(b.indices), dict)
    result |= check_parity(model, program, batches, export)
    result |= {"runtime": f"{runtime} {version(runtime)}", "fingerprint": components.dataset.fingerprint}
    where = f"{result['runtime']} on {result['samples']:,} images of {split}, {checkpoint} of epoch {epoch}"
    apart = f"at most {result['largest_difference']:.1e} apart, {result['different_decisions']:,} decisions differ"
    result["sentence"] = f"{where}: {apart}"
    with write_directory(directory) as draft:
        (draft / name).write_bytes(content)
        write_json(draft / "certificate.json", result)
    return directory / name, result


def make_pixel_model(components: Components, export: str) -> PixelModel:
    data, task = components.dataset, components.task
    if not (isinstance(data, ImageDataset) and data.facts["input_shape"][0] in MODES and hasattr(task, "predict")):
        reason = f"{type(task).__name__} of {type(data).__name__} predicts nothing from gray or color images"
        raise ConfigError(f"export={export}", reason, "give another run, or a task that has `predict`")
    scale = data.file_decoder.scale if data.file_decoder else data.image_sources["train"].scale
    normalizer = Normalizer(scale, data.normalization.mean, data.normalization.std, torch.device("cpu"))
    return PixelModel(components.model.float(), normalizer, task).eval().requires_grad_(False)


def describe_input(dataset: Any) -> dict[str, Any]:
    """Return what it takes to make an input of an image, and to name the predictions."""
    channels, height, width = dataset.facts["input_shape"]
    size = {"height": height, "width": width, "mode": MODES[channels], "layout": "NHWC, uint8"}
    decoding = {"fit": getattr(dataset.file_decoder, "fit", OWN_FIT), "resample": "bilinear"}
    return {"class_names": dataset.facts["class_names"], **size, **decoding, "microstep": version("microstep")}


@torch.inference_mode()
def check_parity(model: PixelModel, program: Program, batches: Iterable[Batch], export: str) -> dict[str, Any]:
    """Return the number of images, the largest difference, and the number of images with another decision.

    Raise MicrostepError if the difference is above the tolerance. Otherwise, another decision is a tie: of the two most
    probable classes, or of a probability and its threshold.
    """
    samples, different, largest, unit = 0, 0, 0.0, getattr(model.task, "std", 1.0)
    for batch in batches:
        pixels = (model.normalizer.invert(batch.inputs) * model.normalizer.scale).round().byte().permute(0, 2, 3, 1)
        for images in (pixels[:1], pixels):  # a batch of one image, and of all
            apart, changed = compare(model.predict_as_evaluated(images), program(images.contiguous()), unit)
            largest = max(largest, apart)
        samples, different = samples + len(pixels), different + changed
    if largest > TOLERANCE:
        reason = f"it differs from the run's model by {largest:.2g}, and in {different:,} of {samples:,} decisions"
        raise MicrostepError(f"export={export}", reason, "use another format, or model.safetensors")
    return {"samples": samples, "largest_difference": largest, "different_decisions": different, "tolerance": TOLERANCE}


def compare(expected: Predictions, found: Predictions, unit: Any) -> tuple[float, int]:
    """Return the largest difference of the numbers, in units, and the number of samples with another decision."""
    largest, different = 0.0, torch.zeros(len(expected["prediction"]), dtype=torch.bool)
    for name, value in expected.items():
        apart = (found[name].double().nan_to_num(-1.0) - value.double().nan_to_num(-1.0)).abs()
        if value.is_floating_point():
            largest = max(largest, (apart / unit).max().item())
        else:
            different |= apart.reshape(len(value), -1).any(1)
    return largest, int(different.sum())


def convert(model: PixelModel, about: Mapping[str, str], export: str) -> tuple[bytes, Program]:
    """Return a file's content, and a function that runs it. Raise ConfigError if torch can't convert the model."""
    size, (*_, save, load) = (int(about["height"]), int(about["width"]), model.factor.shape[1]), FORMATS[export]
    example = torch.zeros((2, *size), dtype=torch.uint8)
    try:
        with warnings.catch_warnings(action="ignore"), torch.no_grad():
            program = torch.export.export(model, (example,), dynamic_shapes=({0: Dim("batch")},))
            for node in program.graph.nodes:
                node.meta.pop("stack_trace", None)  # it names directories of this machine
            run = load(content := save(program, example, list(model(example)), about))
            run(example[:1])
            return content, run
    except Exception as error:  # the exporters raise many kinds
        reason = f"torch can't export this model: {format_error(error)}"
        raise ConfigError(f"export={export}", reason, "use model.safetensors, or train another model") from error


def save_torch(program: ExportedProgram, example: Tensor, names: list[str], about: Mapping[str, str]) -> bytes:
    torch.export.save(program, content := BytesIO(), extra_files={"microstep.json": json.dumps(about)})
    return content.getvalue()


def load_torch(content: bytes) -> Program:
    return torch.export.load(BytesIO(content)).module()


def save_onnx(program: ExportedProgram, example: Tensor, names: list[str], about: Mapping[str, str]) -> bytes:
    options: Any = {"input_names": ["images"], "output_names": names, "dynamic_shapes": ({0: "batch"},)}
    converted: Any = torch.onnx.export(program, (example,), dynamo=True, verbose=False, external_data=False, **options)
    for node in converted.model.graph.all_nodes():
        node.metadata_props.clear()  # notes of the exporter
    converted.model.metadata_props.update(about)
    return bytes(converted.model_proto.SerializeToString())


def load_onnx(content: bytes) -> Program:
    import onnxruntime  # of an extra

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda x: dict(zip(names, map(torch.from_numpy, session.run(names, {"images": x.numpy()})), strict=True))


#: By the name for `export`: file, package that runs it, functions that save and load it.
FORMATS: Mapping[str, tuple[str, str, Callable[..., bytes], Callable[[bytes], Program]]] = {
    "onnx": ("model.onnx", "onnxruntime", save_onnx, load_onnx),
    "torch": ("model.pt2", "torch", save_torch, load_torch),
}
