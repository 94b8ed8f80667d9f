"""`evaluate.py input=FOLDER`: classifies images without labels like the run's own, in any image format."""

from __future__ import annotations

import csv
import json
import os
import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load, save_file
from sklearn.datasets import load_digits

from microstep import Images, image_dataset
from microstep.components.dataset import ImageDataset
from microstep.components.task import Classification
from microstep.config.allowlist import ALLOW_ALL, allowlist_from
from microstep.config.compose import compose
from microstep.config.search_path import CONF
from microstep.errors import (
    CheckpointRefused,
    ConfigError,
    DataError,
    MicrostepError,
    StorageError,
    escape_unprintable,
)
from microstep.evaluation.classifier import load_classifier, load_exported_classifier
from microstep.evaluation.contact_sheet import MAX_THUMBNAILS, draw_contact_sheet, fit_thumbnail, shown_indices
from microstep.evaluation.evaluate import evaluate_run
from microstep.evaluation.predict import PredictedInput, predict_input, predict_with_weights
from microstep.evaluation.predictions import ClassifiedImages, format_predictions_csv
from microstep.run.weights import serialize_weights
from microstep.training.build import build_trainer
from microstep.types.data import Answer
from microstep.utils.progress_bar import ProgressBars
from tests.conftest import error_of, files_limited, fit
from tests.faults.runs import manifest_of

DIGITS = load_digits()
PNG = b"\x89PNG\r\n\x1a\n"


def classify(run: Path, place: Path | str, checkpoint: str = "best", gate=ALLOW_ALL) -> PredictedInput:
    """Classify in this process."""
    return predict_input(run, str(place), checkpoint, gate, None, ProgressBars(False))


def rows_of(directory: Path) -> list[dict[str, str]]:
    with (directory / "predictions.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def digit(index: int) -> Image.Image:
    """Return an 8 × 8 digit with the dataset's 0…16 rescaled to bytes."""
    return Image.fromarray(np.round(DIGITS.images[index] * 255 / 16).astype(np.uint8))


def written(folder: Path, count: int) -> Path:
    """Write the first few digits into a folder."""
    folder.mkdir(parents=True)
    for index in range(count):
        digit(index).save(folder / f"{index:04}.png")
    return folder


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of the finished run, alone in its directory."""
    return shutil.copytree(trained, tmp_path / "run")


def test_an_image_of_a_sample_is_classified_as_the_sample(run, tmp_path):
    """The test split as PNG files gets the same classes, and the same confidence up to the rounding to bytes.

    Confidences are not calibrated without the exported weights, which hold the temperature.
    """
    (run / "model.safetensors").unlink()
    done = evaluate_run(run, "test", "best", ALLOW_ALL, None, ProgressBars(False))
    truth = rows_of(done.directory)
    (tmp_path / "in").mkdir()
    for row in truth:
        digit(int(row["index"])).save(tmp_path / "in" / f"{int(row['index']):04}.png")
    found = rows_of(classify(run, tmp_path / "in").directory)
    assert [row["file"] for row in found] == [f"{int(row['index']):04}.png" for row in truth]
    same = [a["class_1"] == b["prediction"] for a, b in zip(found, truth, strict=True)]
    assert np.mean(same) >= 0.99
    apart = [abs(float(a["confidence_1"]) - float(b["confidence"])) for a, b in zip(found, truth, strict=True)]
    assert max(apart) < 0.02


def test_the_weights_for_others_say_the_same(run, tmp_path):
    """`checkpoint=model.safetensors` needs no checkpoint, and gives exactly the predictions of the best."""
    best = classify(run, written(tmp_path / "in", 20))
    shutil.rmtree(run / "checkpoints")
    done = classify(run, tmp_path / "in", "model.safetensors")
    assert (done.directory, done.epoch) == (run / "reports" / "input-in-model", best.epoch)
    assert rows_of(done.directory) == rows_of(best.directory)


def palette(image: Image.Image) -> Image.Image:
    return image.convert("P")


def transparent(image: Image.Image) -> Image.Image:
    """Return an image with an opaque alpha channel."""
    return image.convert("RGBA")


def sixteen_bits(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image).astype(np.uint16) * 257)


def wide(image: Image.Image) -> Image.Image:
    """Return an image twice as wide, with the digit in its middle."""
    canvas = Image.new("L", (128, 64), 255)
    canvas.paste(image, (32, 0))
    return canvas


FORMS = [
    ("png", lambda image: image),
    ("png", lambda image: image.convert("RGB")),
    ("png", transparent),
    ("png", palette),
    ("gif", palette),
    ("png", sixteen_bits),
    ("png", wide),
    ("jpg", lambda image: image.convert("CMYK")),
    ("webp", lambda image: image.convert("RGB")),
]


def test_a_photographed_digit_is_recognised_in_any_form(run, tmp_path):
    """At least 80 % of 64 × 64 images are correct: color, palette, alpha, 16 bits, wide, several formats."""
    (tmp_path / "in").mkdir()
    for index in range(180):
        suffix, form = FORMS[index % len(FORMS)]
        form(digit(index).resize((64, 64), Image.Resampling.BICUBIC)).save(tmp_path / "in" / f"{index:04}.{suffix}")
    found = rows_of(classify(run, tmp_path / "in").directory)
    assert len(found) == 180
    right = np.array([row["class_1"] == str(DIGITS.target[index]) for index, row in enumerate(found)])
    assert right.mean() >= 0.8
    assert min(right[form :: len(FORMS)].mean() for form in range(len(FORMS))) >= 0.6


def test_five_classes_in_falling_order(run, tmp_path):
    """A row has the five most probable classes, each once, with decreasing confidences that sum to at most 1."""
    for row in rows_of(classify(run, written(tmp_path / "in", 20)).directory):
        confidences = [float(row[f"confidence_{i}"]) for i in range(1, 6)]
        assert len({row[f"class_{i}"] for i in range(1, 6)}) == 5
        assert confidences == sorted(confidences, reverse=True)
        assert 0.1 < confidences[0] <= sum(confidences) <= 1
        assert row["error"] == ""


def test_folders_of_folders_are_searched_and_hidden_ones_are_not(run, tmp_path):
    """Files are sorted by their path below the folder; hidden files, pipes and thumbnails are left out."""
    folder = written(tmp_path / "in", 3)
    written(folder / "b" / "deep", 1)
    written(folder / ".hidden", 1)
    shutil.copy(folder / "0000.png", folder / ".0000.png")
    written(folder / "@eaDir", 1)
    os.mkfifo(folder / "pipe.png")
    found = [row["file"] for row in rows_of(classify(run, folder).directory)]
    assert found == ["0000.png", "0001.png", "0002.png", "b/deep/0000.png"]


def test_every_file_has_a_row(run, tmp_path):
    """An image has a prediction whatever its suffix, and any other file the reason why it has none."""
    folder = written(tmp_path / "in", 3)
    (folder / "0001.png").rename(folder / "0001.heic")
    (folder / "0002.png").rename(folder / "2")
    (folder / "notes.txt").write_text("no picture")
    rows = {row["file"]: row for row in rows_of(classify(run, folder).directory)}
    assert [name for name, row in rows.items() if row["class_1"]] == ["0000.png", "0001.heic", "2"]
    assert rows["notes.txt"]["error"].startswith("it is none of JPEG")


def test_one_image_can_be_given_whatever_it_is_called(run, tmp_path):
    """A single file is classified whatever its suffix."""
    folder = written(tmp_path / "in", 3)
    (folder / "0001.png").rename(folder / "one.picture")
    done = classify(run, folder / "one.picture")
    assert done.directory == run / "reports" / "input-one.picture"
    assert [row["file"] for row in rows_of(done.directory)] == ["one.picture"]


def damaged(folder: Path) -> Path:
    """Add files that are not images, cut off, missing, or far too large; return the folder."""
    (folder / "cut.png").write_bytes((folder / "0000.png").read_bytes()[:60])
    (folder / "text.jpg").write_text("no picture")
    (folder / "empty.png").touch()
    (folder / "gone.png").symlink_to("nowhere")
    (folder / "bomb.pgm").write_bytes(b"P5 9000 9000 255\n")
    return folder


BAD = {"cut.png", "text.jpg", "empty.png", "gone.png", "bomb.pgm"}


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_files_do_not_stop_the_others(run, tmp_path, workers):
    """Readable images get the same predictions as without the bad files, whose rows have the error."""
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("num_workers: null", f"num_workers: {workers}"))
    folder = written(tmp_path / "in", 40)
    alone = rows_of(classify(run, folder).directory)
    done = classify(run, damaged(folder))
    rows = {row["file"]: row for row in rows_of(done.directory)}
    assert {name for name, row in rows.items() if row["error"]} == BAD
    assert [row for name, row in rows.items() if name not in BAD] == alone
    for name in BAD:
        assert not any(value for column, value in rows[name].items() if column not in ("file", "error"))
    assert "9,000 × 9,000 pixels" in rows["bomb.pgm"]["error"]
    assert (len(done.classified.rows), len(done.classified.errors)) == (40, 5)


def test_batches_make_no_difference(run, tmp_path):
    """With bad files in between and another batch size, each row still belongs to its image."""
    folder = damaged(written(tmp_path / "in", 30))
    before = rows_of(classify(run, folder).directory)
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("batch_size: 64", "batch_size: 2"))
    after = rows_of(classify(run, folder).directory)
    same: Any = partial(pytest.approx, abs=1e-5)
    assert [row["class_1"] for row in after] == [row["class_1"] for row in before]
    assert [float(row["confidence_1"] or 0) for row in after] == same(
        [float(row["confidence_1"] or 0) for row in before]
    )


def test_the_program_says_what_it_did(zygote, run, tmp_path):
    """The program prints a table, exits with 0, and warns about the first ten bad files, a line each."""
    folder = written(tmp_path / "in", 4)
    odd = ["\x1b[31m.png", "a\nb.png", os.fsdecode(b"a\xff.png")]
    for name in [*odd, *(f"bad{number}.png" for number in range(9))]:
        (folder / name).write_text("no picture")
    done = zygote.call("evaluate.py", "run=run", "input=in", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "4 classified, 12 failed" in done.stdout
    assert "run/reports/input-in/predictions.csv" in done.stdout
    warnings = done.stderr.splitlines()
    named = [r"\x1b[31m.png", r"a\nb.png", r"a\udcff.png", *(f"bad{number}.png" for number in range(7))]
    assert [line.split(": ")[:2] for line in warnings[:10]] == [["warning", name] for name in named]
    assert warnings[10:] == ["warning: 2 more have no prediction: the column `error` of predictions.csv says why"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "run"]


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nowhere", "input=nowhere: no such folder or file; "),
        ("", "input=: no such folder or file; "),
        ("empty", "input=empty: it holds no files; "),
        ("bad", "input=bad/a.png: it is none of JPEG, "),
        ("bad/b.png", "input=bad/b.png: it is none of JPEG, "),
    ],
)
def test_where_there_is_nothing_to_classify_nothing_is_written(run, tmp_path, monkeypatch, caplog, place, said):
    """Without a folder, images or a readable image: one error that names it, exit 2, no warnings, no report."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "bad" / name).write_text("no picture")
    with pytest.raises(DataError) as caught:
        classify(run, place)
    assert str(caught.value).startswith(said)
    assert caught.value.exit_code == 2
    assert not caplog.records
    assert not list((run / "reports").glob("input-*"))


def test_a_misspelt_folder_is_one_line(zygote, run):
    """The program exits with 2 and one line."""
    done = zygote.call("evaluate.py", "run=run", "input=in, (put)", cwd=run.parent)
    assert (done.returncode, done.stdout) == (2, "")
    assert error_of(done).startswith("error: input=in, (put): no such folder or file; ")


def test_awkward_names_come_back_whole(run, tmp_path):
    """Names with commas, quotes, newlines, $ or bytes that are not UTF-8 survive in a valid CSV."""
    folder = written(tmp_path / "awkward $, (1)", 1)
    names = ["a,b.png", 'say "x".png', "two\nlines.png", "c\rr.png", "$x^2$.png", "=1+1.png", "数字.png"]
    for name in [*map(os.fsencode, names), b"caf\xe9.png"]:
        shutil.copy(folder / "0000.png", os.path.join(os.fsencode(folder), name))  # noqa: PTH118  # bytes
    done = classify(run, folder)
    assert {row["file"] for row in rows_of(done.directory)} == {"0000.png", *names, r"caf\udce9.png"}
    assert done.directory.name == "input-awkward $, (1)"
    assert (done.directory / "contact_sheet.png").read_bytes().startswith(PNG)


def test_names_can_not_steer_a_terminal():
    """Unprintable characters are escaped as in Python; others are unchanged."""
    assert escape_unprintable("a\x1b[31m\nb\udce9 é数") == r"a\x1b[31m\nb\udce9 é数"


def test_a_second_call_replaces_the_first_and_no_other_file(run, tmp_path):
    """A second call for the folder replaces table and sheet, keeps other files, and leaves no temporary file."""
    directory = classify(run, written(tmp_path / "in", 12)).directory
    first = (directory / "contact_sheet.png").read_bytes()
    (directory / "notes.txt").write_text("mine")
    shutil.rmtree(tmp_path / "in")
    classify(run, written(tmp_path / "in", 2))
    assert len(rows_of(directory)) == 2
    assert (directory / "contact_sheet.png").read_bytes() != first
    assert {path.name for path in directory.iterdir()} == {"contact_sheet.png", "notes.txt", "predictions.csv"}


def test_twice_the_same_is_the_same_bytes(run, tmp_path):
    """Neither file contains a date or anything else that changes."""
    folder = written(tmp_path / "in", 5)
    files = [classify(run, folder).directory / name for name in ("predictions.csv", "contact_sheet.png")]
    before = [file.read_bytes() for file in files]
    classify(run, folder)
    assert [file.read_bytes() for file in files] == before


def test_the_rest_of_a_run_is_left_as_it_was(run, tmp_path):
    """Nothing but reports/input-… is written."""
    kept = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    directory = classify(run, written(tmp_path / "in", 2)).directory
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and directory not in path.parents}
    assert after == kept


def test_the_last_checkpoint_has_files_of_its_own(run, tmp_path):
    """`checkpoint=last` writes to input-<folder>-last."""
    done = classify(run, written(tmp_path / "in", 2), "last")
    assert done.directory == run / "reports" / "input-in-last"
    assert len(rows_of(done.directory)) == 2


def test_what_can_not_be_written_is_a_failure_of_storage(run, tmp_path):
    """A full disk is exit 4, and the files of an earlier call are unchanged."""
    folder = written(tmp_path / "in", 2)
    directory = classify(run, folder).directory
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    written(tmp_path / "in" / "more", 30)
    with files_limited(1000), pytest.raises(StorageError):
        classify(run, folder)
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_the_gate_is_no_wider(run, tmp_path):
    """`input` uses the same allowlist as `split`, and refuses a damaged checkpoint, too."""
    folder = written(tmp_path / "in", 2)
    with pytest.raises(ConfigError, match="the run directory names it, your own conf/ does not"):
        classify(run, folder, gate=allowlist_from([]))
    file = run / "checkpoints" / manifest_of(run)["best"]["file"]
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointRefused):
        classify(run, folder)


def test_the_training_images_are_not_needed(photos, tmp_path, monkeypatch):
    """A run whose images are gone gives the same predictions, from each of its weights, and so does the file alone."""
    shutil.copytree(photos, tmp_path / "data")
    words = [f"dataset.root={tmp_path / 'data'}", "dataset=image_folder", "dataset.size=12", "num_workers=0"]
    fit([*words, "model=mlp", "epochs=1", "batch_size=8"], run := tmp_path / "run")
    before = rows_of(classify(run, photos / "test").directory)
    shutil.rmtree(tmp_path / "data")
    for checkpoint in ("best", "last", "model.safetensors"):
        assert rows_of(classify(run, photos / "test", checkpoint).directory) == before
    monkeypatch.chdir(tmp_path)
    done = predict_with_weights(run / "model.safetensors", str(photos / "test"), ALLOW_ALL, None, ProgressBars(False))
    assert rows_of(done.directory) == before


def test_weights_alone_classify(zygote, run, tmp_path):
    """`weights=FILE input=FOLDER` needs no run, trusts built-in models only, and writes below outputs/predictions."""
    expected = rows_of(classify(run, written(tmp_path / "in", 20)).directory)
    (run / "model.safetensors").rename(tmp_path / "model.safetensors")
    shutil.rmtree(run)
    done = zygote.call("evaluate.py", "weights=model.safetensors", "input=in", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "outputs/predictions/in/predictions.csv" in done.stdout
    assert rows_of(tmp_path / "outputs" / "predictions" / "in") == expected
    state, about = load((file := tmp_path / "model.safetensors").read_bytes()), safe_metadata(file)
    node = {"_target_": "tests.evaluation.test_predict.evil"}
    file.write_bytes(serialize_weights(state, about | {"architecture": json.dumps(node)}))
    done = zygote.call("evaluate.py", "weights=model.safetensors", "input=in", cwd=tmp_path)
    assert done.returncode == 2
    assert error_of(done).startswith(
        "error: model._target_=tests.evaluation.test_predict.evil: the run directory names"
    )


def safe_metadata(file: Path) -> dict[str, str]:
    with safe_open(file, "pt") as content:
        return content.metadata()


def evil(input_shape: object) -> None:
    pytest.fail("it was built")


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        ("weights=w", "weights=w: a file of weights holds no data to evaluate on; add input=FOLDER, or give run=", 2),
        ("weights=w run=r input=in", "weights=w: run= is given as well; leave out one of the two", 2),
        ("weights=w baseline=b input=in", "weights=w: baseline= is given as well; leave out one of the two", 2),
        ("weights=w checkpoint=last input=in", "checkpoint=last: weights= names a file itself; leave out", 2),
        ("weights=w input=in", "weights=w: it is not there; it is written when a run finishes; give the ", 6),
        ("weights=in/0000.png input=in", "weights=in/0000.png: it can't be read: ", 6),
        ("weights=foreign.safetensors input=in", "weights=foreign.safetensors: it can't be read: it is not the ", 6),
        ("input=in", "run=???: it has no value; give one: run=…, or weights=FILE with input=FOLDER", 2),
    ],
)
def test_weights_that_can_not_be_used_are_one_line(zygote, tmp_path, words, said, code):
    """Each mistake with `weights=` is one line that names the way out, and nothing is written."""
    written(tmp_path / "in", 1)
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    before = sorted(tmp_path.rglob("*"))
    done = zygote.call("evaluate.py", *words.split(), cwd=tmp_path)
    assert (done.returncode, error_of(done)[: len(said) + 7]) == (code, f"error: {said}")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("key", ["architecture", "class_names", "input_shape", "mean", "task", "fitted"])
@pytest.mark.parametrize(
    "value", ["", "3", "[]", "[[]]", '"${x}"', '{"_target_": "${x}"}', "[" * 9999, "[99999999, 9, 9]"]
)
def test_hostile_metadata_are_refused(trained, tmp_path, key, value):
    """Metadata that are malformed end in a MicrostepError, never in anything else."""
    content = (trained / "model.safetensors").read_bytes()
    about = safe_metadata(trained / "model.safetensors") | {key: value}
    (file := tmp_path / "model.safetensors").write_bytes(serialize_weights(load(content), about))
    with suppress(MicrostepError):
        load_exported_classifier(file, allowlist_from([CONF]), "cpu")


def squashed(file: Path) -> np.ndarray:
    """Decode a file as `own_images` does."""
    with Image.open(file) as image:
        return np.asarray(image.convert("L").resize((8, 8)))[None]


def own_images(device: torch.device, decoder: str | None = None) -> ImageDataset:
    """A data set of the user's own, whose images are the whole of each picture, not its middle."""
    pixels = np.tile(np.arange(64, dtype=np.uint8).reshape(1, 1, 8, 8), (60, 1, 1, 1))
    images = Images(pixels, np.arange(60) % 2, ("even", "odd"))
    return image_dataset(images, images, device, 20, 0, None, None, decoder=decoder and squashed)


def test_a_data_set_of_ones_own_decodes_itself(tmp_path):
    """Its own decoder reads the images; without one, `input=` is refused, and so are its weights alone."""
    wide(digit(0).resize((64, 64))).save(written(tmp_path / "in", 0) / "wide.png")
    for name, decoder in (("with", "yes"), ("without", None)):
        config = compose(["model=mlp", "epochs=1", "threads=1", "progress=false", "batch_size=8"])
        config.dataset = {"_target_": "tests.evaluation.test_predict.own_images", "decoder": decoder}
        build_trainer(config, tmp_path / name).fit()
    done = classify(tmp_path / "with", tmp_path / "in")
    seen = load_classifier(tmp_path / "with", ALLOW_ALL, None, "best").decoder(tmp_path / "in" / "wide.png")
    assert np.array_equal(seen, squashed(tmp_path / "in" / "wide.png"))
    assert len(rows_of(done.directory)) == 1
    with pytest.raises(ConfigError, match=r"the data set decodes its images itself, .*image_dataset\(…, decoder=…\)"):
        classify(tmp_path / "without", tmp_path / "in")
    with pytest.raises(ConfigError, match="give run=RUN_DIR instead"):
        load_exported_classifier(tmp_path / "with" / "model.safetensors", ALLOW_ALL, None)


def test_what_does_not_say_how_it_decodes_needs_its_data(trained, tmp_path):
    """Weights of 0.1.0 record no fit: their run is classified with its data set, and the file alone is refused."""
    run = shutil.copytree(trained, tmp_path / "run")
    expected = rows_of(classify(run, written(tmp_path / "in", 5)).directory)
    content, about = (run / "model.safetensors").read_bytes(), safe_metadata(run / "model.safetensors")
    old = serialize_weights(load(content), {key: value for key, value in about.items() if key not in ("fit", "task")})
    (run / "model.safetensors").write_bytes(old)
    assert rows_of(classify(run, tmp_path / "in", "model.safetensors").directory) == expected
    with pytest.raises(ConfigError, match="it does not say how images are decoded; give run=RUN_DIR instead"):
        load_exported_classifier(run / "model.safetensors", ALLOW_ALL, None)


def test_a_run_on_folders_of_colours(tmp_path):
    """A run on color images of another size, two classes (k = 2) and fp64 tells red images from blue ones."""
    generator = np.random.default_rng(0)
    for place, count in (("data/red", 20), ("data/blue", 20), ("in", 6)):
        (tmp_path / place).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(0, 120, (20, 30, 3), dtype=np.uint8)
            pixels[..., 2 if "blue" in place or (place == "in" and number % 2) else 0] += 130
            Image.fromarray(pixels).save(tmp_path / place / f"{number:02}.png")
    words = [f"dataset.root={tmp_path / 'data'}", "dataset=image_folder", "dataset.size=12", "num_workers=0"]
    fit([*words, "batch_size=8", "epochs=4", "precision=fp64"], tmp_path / "run")
    rows = rows_of(classify(tmp_path / "run", tmp_path / "in").directory)
    assert list(rows[0]) == ["file", "class_1", "confidence_1", "class_2", "confidence_2", "error"]
    assert [row["class_1"] for row in rows] == ["red", "blue"] * 3
    assert all(float(row["confidence_1"]) + float(row["confidence_2"]) == pytest.approx(1, abs=2e-6) for row in rows)


def test_only_a_classifier_of_images_is_accepted(run, tmp_path):
    """Two channels, data that are not images, or another task: each is refused in one line."""
    folder, small = written(tmp_path / "in", 1), ["model=mlp", "epochs=1", "batch_size=20"]
    fit(
        [*small, "dataset=synthetic", "dataset.samples=60", "dataset.val_samples=20", "dataset.channels=2"],
        tmp_path / "2",
    )
    with pytest.raises(ConfigError, match="the run's images have 2 channels; give a run that classifies"):
        classify(tmp_path / "2", folder)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["task"] = {"_target_": "tests.tasks.segmentation.Segmentation"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match="the run's task is Segmentation, which has no `answer`; "):
        classify(run, folder)


def test_a_sheet_shows_all_or_a_few_evenly_spread():
    """Up to MAX_THUMBNAILS images are all shown, in order; of more, the first, the last and others, evenly spaced."""
    assert shown_indices(1) == [0]
    assert shown_indices(MAX_THUMBNAILS) == list(range(MAX_THUMBNAILS))
    for count in (MAX_THUMBNAILS + 1, 100, 12_345):
        assert len(set(shown_indices(count))) == MAX_THUMBNAILS
        assert (shown_indices(count)[0], shown_indices(count)[-1]) == (0, count - 1)
        assert max(np.diff(shown_indices(count))) - min(np.diff(shown_indices(count))) <= 1


@pytest.mark.parametrize(("count", "channels", "size"), [(1, 3, (16, 16)), (7, 1, (8, 8)), (60, 3, (30, 10))])
def test_a_sheet_holds_every_thumbnail_as_it_is(tmp_path, count, channels, size):
    """The sheet contains each thumbnail pixel by pixel, and a class name with $ is drawn as text."""
    height, width = fit_thumbnail(*size)
    colours = np.random.default_rng(0).permutation(200)[:count].astype(np.uint8) + 20
    thumbnails = np.broadcast_to(colours[:, None, None, None], (count, channels, height, width))
    answer = Answer({}, "$x^{$ 20%", unsure=True)
    answers = ClassifiedImages(["f.png"] * count, dict.fromkeys(range(count), answer), {})
    (tmp_path / "sheet.png").write_bytes(draw_contact_sheet(answers, range(count), thumbnails, "na$me"))
    pixels = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    grey = pixels[..., 0][(pixels == pixels[..., :1]).all(-1)]
    assert all((grey == colour).sum() >= height * width for colour in colours)


def test_few_classes_make_few_columns():
    """Both of two classes are listed; of equally probable ones the first wins; an unreadable image has empty cells."""
    task = Classification(("x,y", "z"), torch.arange(2), torch.device("cpu"))
    answers = dict(enumerate(task.answer(torch.tensor([[0.0, 0.0]])), 1))
    answers = ClassifiedImages(["a", "b"], answers, {0: "no"})
    assert format_predictions_csv(answers).decode().splitlines() == [
        "file,class_1,confidence_1,class_2,confidence_2,error",
        "a,,,,,no",
        'b,"x,y",0.500000,z,0.500000,',
    ]
