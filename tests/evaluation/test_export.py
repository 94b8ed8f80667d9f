"""`evaluate.py export=`: a file that predicts from pixels as the run does, without microstep."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

from microstep.config.allowlist import ALLOW_ALL
from microstep.config.choices import CHOICES
from microstep.config.compose import compose
from microstep.errors import ConfigError, MicrostepError
from microstep.evaluation.evaluate import load_run
from microstep.evaluation.export import FORMATS, PixelModel, compare, export_run
from microstep.evaluation.predict import predict_input
from microstep.run.layout import remove_run_files, remove_temporaries
from microstep.training.build import build_trainer
from microstep.utils.files import temporary_path
from microstep.utils.progress_bar import ProgressBars
from tests.conftest import ROOT, error_of, fit
from tests.docs.test_docs import code_blocks

PAGE = (ROOT / "docs" / "export.md").read_text()
LONG = pytest.mark.long
BOTH = pytest.mark.parametrize("export", ["onnx", "torch"])
SMALL = ("dataset=synthetic", "dataset.samples=96", "dataset.val_samples=32", "dataset.test_samples=40", "epochs=1")


@dataclass(frozen=True)
class Export:
    file: Path
    certificate: Mapping[str, Any]

    def run(self, pixels: np.ndarray) -> Mapping[str, torch.Tensor]:
        *_, load = FORMATS[self.file.parent.name.partition("-")[0]]
        return load(self.file.read_bytes())(torch.from_numpy(pixels))


def exported(run: Path, export: str = "onnx", checkpoint: str = "best", split: str = "test") -> Export:
    """Export in this process."""
    return Export(*export_run(run, export, split, checkpoint, ALLOW_ALL, ProgressBars(False), {}))


def opened(file: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def predicted(run: Path, folder: Path, checkpoint: str = "best") -> list[dict[str, str]]:
    """Return the rows of `evaluate.py input=FOLDER`."""
    done = predict_input(run, str(folder), checkpoint, ALLOW_ALL, None, ProgressBars(False))
    with (done.directory / "predictions.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of the finished run, alone in its directory."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture(scope="module")
def exports(trained, tmp_path_factory) -> Mapping[str, Export]:
    """The exports of a run in both formats, made once. Its directory is that of their files' directories."""
    run = shutil.copytree(trained, tmp_path_factory.mktemp("exports") / "run")
    return {export: exported(run, export, name) for export, name in (("onnx", "best"), ("torch", "last"))}


@pytest.fixture
def digits(tmp_path) -> Path:
    """A folder of digits as PNG files."""
    (tmp_path / "in").mkdir()
    for number, pixels in enumerate(load_digits().images[:20]):
        Image.fromarray(np.round(pixels * 255 / 16).astype(np.uint8)).save(tmp_path / "in" / f"{number:02}.png")
    return tmp_path / "in"


@pytest.mark.parametrize(("export", "checkpoint"), [("onnx", "best"), ("torch", "last")])
def test_a_file_predicts_what_the_run_predicts(exports, digits, export, checkpoint):
    """Pixels as Pillow decodes them have the classes and calibrated confidences of `input=`, one by one or together."""
    done = exports[export]
    run = done.file.parents[2]
    assert done.file == run / "export" / f"{export}{'' if checkpoint == 'best' else '-last'}" / FORMATS[export][0]
    pixels = [np.array(Image.open(file)).reshape(1, 8, 8, 1) for file in sorted(digits.iterdir())]
    together, alone = done.run(np.concatenate(pixels)), done.run(pixels[0])
    assert alone["prediction"] == together["prediction"][:1]
    rows = predicted(run, digits, checkpoint)
    assert [str(label) for label in together["prediction"].tolist()] == [row["class_1"] for row in rows]
    confidences = [float(row["confidence_1"]) for row in rows]
    assert together["probabilities"].amax(1).tolist() == pytest.approx(confidences, abs=2e-6)


def test_the_example_of_the_page_needs_no_microstep(exports, digits, tmp_path):
    """The program in docs/export.md prints the class and confidence of `input=` in a process without microstep."""
    run = exports["onnx"].file.parents[2]
    printed = run_example(run, sorted(digits.iterdir()), tmp_path)
    rows = predicted(run, digits)
    assert [line.split(": ")[1].split()[0] for line in printed] == [row["class_1"] for row in rows]
    assert [float(line.split()[-1]) for line in printed] == pytest.approx(
        [float(r["confidence_1"]) for r in rows], abs=1e-4
    )


def run_example(run: Path, files: list[Path], tmp_path: Path) -> list[str]:
    """Run the page's program on files, with neither microstep nor torch to import."""
    (example,) = (block for block in code_blocks(PAGE) if block.startswith("import json\nimport sys"))
    blocked = "import sys\nsys.modules |= dict.fromkeys(('microstep', 'torch', 'torchvision'))\n"
    (tmp_path / "example.py").write_text(blocked + example.replace("RUN_DIR", str(run)))
    command = [sys.executable, "-I", str(tmp_path / "example.py"), *map(str, files)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("fit_option", [pytest.param("crop", marks=LONG), "pad", pytest.param("squash", marks=LONG)])
def test_the_example_reads_photos_as_the_run_does(photos, tmp_path, fit_option):
    """Large, rotated by EXIF, transparent, CMYK, gray and palette images have the predictions of `input=`."""
    words = ["dataset=image_folder", f"dataset.root={photos}", "dataset.size=12", f"dataset.fit={fit_option}"]
    fit([*words, "epochs=1", "batch_size=16"], tmp_path / "run")
    files = odd_photos(tmp_path / "in")
    exported(tmp_path / "run")
    printed = run_example(tmp_path / "run", files, tmp_path)
    rows = predicted(tmp_path / "run", tmp_path / "in")
    assert [f"{row['class_1']} {float(row['confidence_1']):.3f}" for row in rows] == [
        f"{line.split()[-2]} {float(line.split()[-1]):.3f}" for line in printed
    ]


def odd_photos(folder: Path) -> list[Path]:
    """Write a photo in several modes and formats; return the files, sorted."""
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    photo = Image.fromarray(pixels).resize((416, 288), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[274] = 6
    photo.save(folder / "rotated.jpg", exif=exif)
    for mode, suffix in (("CMYK", "jpg"), ("L", "jpg"), ("P", "png"), ("RGB", "webp"), ("LA", "png")):
        photo.convert(mode).save(folder / f"{mode}.{suffix}")
    photo.putalpha(Image.linear_gradient("L").resize(photo.size))
    photo.save(folder / "transparent.png")
    return sorted(folder.iterdir())


def test_the_metadata_describe_input_and_origin(exports):
    """Names, size, fit, hash and epoch are texts of the file; those of both formats are the same, and the page's."""
    done, extra = exports["onnx"], {"microstep.json": ""}
    record = json.loads((done.file.parents[2] / "run.json").read_text())
    about = opened(done.file).get_modelmeta().custom_metadata_map
    assert json.loads(about["class_names"]) == [*"0123456789"]
    found = {key: about[key] for key in ("height", "width", "mode", "layout", "fit", "resample", "dataset")}
    size = {"height": "8", "width": "8", "mode": "L", "layout": "NHWC, uint8"}
    assert found == {**size, "fit": "crop", "resample": "bilinear", "dataset": "digits"}
    assert (about["experiment_hash"], about["checkpoint"]) == (record["experiment_hash"], "best")
    assert int(about["epoch"]) == record["metrics"]["best"]["epoch"]
    torch.export.load(exports["torch"].file, extra_files=extra)
    assert json.loads(extra["microstep.json"]) == {**about, "checkpoint": "last", "epoch": "3"}
    assert [key for key in [*about, *done.certificate] if f"`{key}`" not in PAGE] == []


@BOTH
def test_a_file_tells_nothing_of_the_machine(exports, export):
    """It names no directory: neither the run's nor that of the code."""
    content, run = exports[export].file.read_bytes(), exports[export].file.parents[2]
    assert [path for path in (run, ROOT, Path(torch.__file__).parent) if os.fsencode(path) in content] == []


@BOTH
def test_the_certificate_is_of_the_bytes_beside_it(exports, export):
    """It has the file's SHA-256, counts all test images, and the parity is far below the tolerance."""
    done = exports[export]
    certificate = json.loads((done.file.parent / "certificate.json").read_text())
    assert certificate == done.certificate
    assert certificate["sha256"] == sha256(done.file.read_bytes()).hexdigest()
    assert (certificate["samples"], certificate["different_decisions"]) == (180, 0)
    assert 0 < certificate["largest_difference"] < 1e-5


def forget_normalization(model: PixelModel, images: torch.Tensor):
    return model.task.predict(model.model(images.permute(0, 3, 1, 2).float() / 255))


def swap_channels(model: PixelModel, images: torch.Tensor):
    inputs = images.flip(-1).permute(0, 3, 1, 2).float() * model.factor + model.offset
    return model.task.predict(model.model(inputs))


def forget_temperature(model: PixelModel, images: torch.Tensor):
    outputs = model.model(images.permute(0, 3, 1, 2).float() * model.factor + model.offset)
    return {"prediction": outputs.argmax(1), "probabilities": outputs.softmax(1)}


def mix_classes(model: PixelModel, images: torch.Tensor):
    outputs = model.model(images.permute(0, 3, 1, 2).float() * model.factor + model.offset).roll(1, 1)
    return model.task.predict(outputs)


@pytest.mark.parametrize("fault", [forget_normalization, forget_temperature, mix_classes])
def test_another_prediction_is_refused(run, monkeypatch, fault):
    """An export without normalization or temperature, or with other classes, fails and leaves nothing behind."""
    monkeypatch.setattr(PixelModel, "forward", fault)
    refused(run)


def test_swapped_colors_are_refused(photos, tmp_path, monkeypatch):
    """An export that takes blue for red fails."""
    words = ["dataset=image_folder", f"dataset.root={photos}", "dataset.size=12", "epochs=1", "batch_size=16"]
    fit(words, tmp_path / "run")
    monkeypatch.setattr(PixelModel, "forward", swap_channels)
    refused(tmp_path / "run")


def refused(run: Path) -> None:
    """Check that a run is not exported, with exit code 1."""
    with pytest.raises(MicrostepError, match=r"^export=torch: it differs from the run's model by [\d.e+-]+, and") as no:
        exported(run, "torch")
    assert no.value.exit_code == 1
    assert not (run / "export").exists()


def test_an_earlier_export_outlives_one_that_fails(run, monkeypatch):
    """The file and the certificate of an earlier export are kept to the byte if the next is refused."""
    done = exported(run, "torch", split="val")
    directory = done.file.parent
    assert done.certificate["split"] == "val"
    before = {file.name: file.read_bytes() for file in directory.iterdir()}
    monkeypatch.setattr(PixelModel, "forward", forget_normalization)
    with pytest.raises(MicrostepError):
        exported(run, "torch")
    assert {file.name: file.read_bytes() for file in directory.iterdir()} == before


def test_the_validation_split_stands_in_for_a_missing_test_split(run, monkeypatch):
    """The certificate of a run without test images is of its validation images."""

    def load_without_test(*given: Any) -> tuple[Any, int]:
        components, epoch = load_run(*given)
        splits = {name: split for name, split in components.loaders.splits.items() if name != "test"}
        return replace(components, loaders=replace(components.loaders, splits=splits)), epoch

    monkeypatch.setattr("microstep.evaluation.export.load_run", load_without_test)
    assert exported(run, "torch").certificate["split"] == "val"


def test_every_difference_counts():
    """A number, a decision and a NaN are each noticed; NaN on both sides is the same."""
    row = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    expected = {"prediction": torch.tensor([1, 0]), "probabilities": row}
    assert compare(expected, expected, 1.0) == (0.0, 0)
    assert compare(expected, {**expected, "prediction": torch.tensor([1, 1])}, 1.0) == (0.0, 1)
    assert compare(expected, {**expected, "probabilities": row.flip(1)}, 1.0) == (0.5, 0)
    lost = {**expected, "probabilities": row.where(row > 0.3, torch.nan)}
    assert compare(expected, lost, 1.0)[0] > 1
    assert compare(lost, lost, 1.0) == (0.0, 0)


TASKS = ("--config-dir", str(ROOT / "tests" / "components" / "task" / "conf"))
VARIANTS = {
    "ghost": (*SMALL, "model.norm=ghost", "dataset.size=8", "batch_size=16", "average=ema", "precision=amp"),
    "double": (*SMALL, "dataset.size=8", "model=mlp", "precision=fp64"),
    "streaming": (*SMALL, "dataset.size=8", "dataset.channels=1", "model=mlp", "model.dropout=0.5"),
    "gray": (*SMALL, "dataset.channels=1", "model=torchvision", "model.name=squeezenet1_1"),
}


@pytest.mark.parametrize(
    "name", ["ghost", "gray", *(pytest.param(name, marks=LONG) for name in ("double", "streaming"))]
)
def test_models_and_precisions_are_exported(tmp_path, name):
    """Models with ghost norm, averages, frozen weights and gray images predict the same, in fp32."""
    fit(VARIANTS[name], tmp_path / "run")
    certificate = exported(tmp_path / "run").certificate
    assert (certificate["samples"], certificate["different_decisions"]) == (40, 0)
    assert certificate["largest_difference"] < 1e-4


@pytest.mark.long
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "googlenet", "vit_b_16"])
def test_models_of_torchvision_are_exported(tmp_path, name):
    """Residual, inception and attention models of torchvision predict the same."""
    words = "dataset.size=64", "batch_size=8", "steps=1", "model=torchvision", f"model.name={name}"
    fit((*SMALL[:-1], *words), tmp_path / "run")
    assert exported(tmp_path / "run").certificate["largest_difference"] < 1e-3


@pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")
@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_models_of_timm_are_exported(tmp_path, name):
    """A residual network and a vision transformer of timm predict the same."""
    words = "dataset.size=160", "batch_size=8", "steps=1", "model=timm", f"model.name={name}"
    fit((*SMALL[:-1], *words), tmp_path / "run")
    assert exported(tmp_path / "run").certificate["largest_difference"] < 1e-3


@pytest.mark.parametrize(
    "words", [("task=multilabel", "dataset=labeled_digits"), ("task=regression", "dataset=numbered_digits")]
)
@pytest.mark.parametrize("export", ["onnx", pytest.param("torch", marks=LONG)])
def test_labels_and_numbers_are_exported(tmp_path, words, export, digits):
    """Labels are decided at the fitted thresholds, and numbers are in the units of the targets."""
    config = compose([*words, "model=mlp", "epochs=1", "threads=1", "progress=false"], Path(TASKS[1]))
    build_trainer(config, tmp_path / "run").fit()
    done, rows = exported(tmp_path / "run", export), predicted(tmp_path / "run", digits)
    assert (done.certificate["different_decisions"], done.certificate["largest_difference"] < 1e-5) == (0, True)
    pixels = np.stack([np.array(Image.open(file)).reshape(8, 8, 1) for file in sorted(digits.iterdir())])
    found = done.run(pixels)["prediction"]
    if "task=multilabel" in words:
        names = [name.removeprefix("probability_") for name in rows[0] if name.startswith("probability_")]
        labels = ["|".join(n for n, is_there in zip(names, row, strict=True) if is_there) for row in found.tolist()]
        assert labels == [row["prediction"] for row in rows]
    else:
        assert found[:, 0].tolist() == pytest.approx([float(row["prediction"]) for row in rows], rel=1e-5)


class Branching(nn.Module):
    """A model that decides in Python by the values of its input."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(64, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.linear(images.flatten(1))
        return logits if images.mean() > -100 else -logits


def test_what_torch_cannot_export_is_one_line(tmp_path):
    """A model with a branch on its input's values is refused with exit code 2, and nothing is left behind."""
    config = compose(["model=mlp", "steps=1", "threads=1", "progress=false"])
    config.model = {"_target_": "tests.evaluation.test_export.Branching"}
    build_trainer(config, tmp_path / "run").fit()
    with pytest.raises(ConfigError, match=r"^export=onnx: torch can't export this model: ") as refused:
        exported(tmp_path / "run")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run" / "export").exists()


def test_the_programs_lines_are_few(zygote, run, tmp_path):
    """The program prints file and result, and with --json the certificate; nothing else, no warning."""
    done = zygote.call("evaluate.py", "run=run", "export=onnx", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["export", "result"]
    assert "on 180 images of test, best of epoch " in done.stdout
    done = zygote.call("evaluate.py", "run=run", "export=torch", "--json", cwd=tmp_path)
    certificate = json.loads((run / "export" / "torch" / "certificate.json").read_text())
    assert json.loads(done.stdout) == {**certificate, "directory": "run/export/torch"}


NOT_TOGETHER = "export=onnx takes run= alone; leave out one of the two"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["export=tflite"], "export=tflite: no such option; the options are onnx, torch, card"),
        (["export=onnx", "input=."], f"input=.: {NOT_TOGETHER}"),
        (["export=onnx", "baseline=B"], f"baseline=B: {NOT_TOGETHER}"),
        (["export=onnx", "tta=flip"], f"tta=flip: {NOT_TOGETHER}"),
        (["export=onnx", "weights=F"], f"weights=F: {NOT_TOGETHER}"),
        (["export=onnx", "dataset=digits"], f"dataset._target_=microstep.components.dataset.digits: {NOT_TOGETHER}"),
        (["export=torch", "device=cuda"], "device=cuda: export=torch takes run= alone; leave out one of the two"),
        (["export=torch", "split=tset"], "split=tset: no such split; the options are train, val, test"),
    ],
)
def test_what_makes_no_sense_is_refused(zygote, run, tmp_path, words, error):
    """The exit code is 2, the line says what to do, and nothing is written."""
    done = zygote.call("evaluate.py", "run=run", *words, cwd=tmp_path)
    assert (done.returncode, error_of(done)) == (2, f"error: {error}")
    assert not (run / "export").exists()


def test_a_missing_package_is_one_line(monkeypatch):
    """Without the extra, `export=onnx` names it, and `export=torch` needs none."""
    monkeypatch.setattr("microstep.config.validation.find_spec", lambda name: None if "onnx" in name else name)
    compose(["run=R", "export=torch"], config_name="evaluate")
    wanted = r"^export=onnx: onnx, onnxscript, onnxruntime not installed; pip install 'microstep\[onnx\]'$"
    with pytest.raises(ConfigError, match=wanted):
        compose(["run=R", "export=onnx"], config_name="evaluate")


def test_the_options_are_the_formats():
    """The names that a command may use are those of the formats."""
    assert set(FORMATS) <= set(CHOICES["export"])


def test_a_redone_run_keeps_no_export_of_the_old_weights(run):
    """Removing a run's files removes exports and drafts of dead processes, and keeps files of others."""
    exported(run, "torch")
    (run / "export" / "mine.txt").write_text("mine")
    draft = temporary_path(run / "export" / "onnx")
    (draft / "onnx").mkdir(parents=True)
    remove_temporaries(run)
    assert not draft.exists()
    remove_run_files(run)
    assert [file.name for file in (run / "export").iterdir()] == ["mine.txt"]


def test_a_link_is_not_followed(run, tmp_path):
    """An export never leaves the run directory through a link."""
    (tmp_path / "elsewhere").mkdir()
    (run / "export").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="a link leads out of the run"):
        exported(run, "torch")
    assert not [*(tmp_path / "elsewhere").iterdir()]
