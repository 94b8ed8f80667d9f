"""check=precision as a user meets it, and the runs of precision=auto."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from microstep.config.allowlist import ALLOW_ALL
from microstep.config.compose import compose
from microstep.diagnostics.precision import check as examination
from microstep.diagnostics.precision.check import format_precision_table
from microstep.diagnostics.precision.plot import draw_precision_plot
from microstep.evaluation.comparison.runs import ReportRequest, read_compared_run
from microstep.evaluation.evaluate import evaluate_run
from microstep.sweep.definition import Job, Sweep
from microstep.sweep.planning import ExperimentHashes, plan_sweep
from microstep.training.build import build_trainer
from microstep.training.builders import build_partial_components
from microstep.training.profiling.gradients import PrecisionAccuracy
from microstep.training.profiling.profile import Measurement, Profile
from microstep.training.profiling.recommendation import Recommendation, store_recommendation
from microstep.training.provenance import recommendation_key
from microstep.training.resume import resume
from microstep.utils.progress_bar import ProgressBars
from tests.conftest import error_of, fit
from tests.faults.interruptions import stop_at
from tests.faults.runs import differences, same, state_of

remembered = import_module("microstep.training.profiling.recommendation")
pytestmark = pytest.mark.filterwarnings("ignore:.*lr_scheduler.step:UserWarning")
WORDS = ["threads=1", "progress=false", "model=mlp", "epochs=2", "precision=auto"]


def test_a_check_from_the_command_line(zygote, tmp_path: Path) -> None:
    """A table of the candidates, a recommendation last; files of all of it; and precision=auto takes the same."""
    words = ["model=mlp", "batch_size=32"]
    home = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = zygote.call("train.py", "check=precision", *words, "hydra.run.dir=found", cwd=tmp_path, **home)
    assert (done.returncode, done.stderr) == (0, "")
    numbers = json.loads((tmp_path / "found" / "precision.json").read_text())
    assert "\n" not in numbers["sentence"]
    assert set(numbers["precisions"]) == {"fp32", "bf16", "fp16"}
    name = numbers["recommendation"]["name"]
    assert done.stdout.splitlines()[-1] == f"Type precision={name}, or precision=auto, which takes it from now on."
    assert (tmp_path / "found" / "precision.txt").read_text().strip() in done.stdout.replace(
        "  written to found\n\n", ""
    )
    with Image.open(tmp_path / "found" / "precision.png") as picture:
        assert 850 < picture.width < 950
    tags = EventAccumulator(str(tmp_path / "found")).Reload().Tags()
    assert "check/precision" in tags["images"]
    assert "check/bf16/gradient_drift" in tags["scalars"]
    start = zygote.call("train.py", "precision=auto", "epochs=1", *words, "hydra.run.dir=run", cwd=tmp_path, **home)
    assert f"precision      {name} (auto: {numbers['recommendation']['reason']})" in start.stdout
    assert "measuring" not in start.stdout


def test_what_training_refuses_is_refused(zygote, tmp_path: Path) -> None:
    """In one line, with exit code 2; no directory stays. So is tf32 on a CPU."""
    for words, told in (
        (["check=precision", "batch_size=100000"], "error: batch_size=100000: an epoch has 1,437 samples; "),
        (
            ["precision=tf32", "device=cpu"],
            "error: precision=tf32: only CUDA's tensor cores compute so, and the device",
        ),
    ):
        done = zygote.call("train.py", *words, cwd=tmp_path)
        assert done.returncode == 2
        assert error_of(done).startswith(told)
    assert not list(tmp_path.rglob("train.log"))


def profile(**failed: str) -> Profile:
    fine = Measurement((0.0123456,), 10, 2**30, PrecisionAccuracy(1e-9, 2e-7, 0.0, 0.0, None, 0, 1.0, True))
    lost = Measurement(
        (12.3,), 2, 2**20, PrecisionAccuracy(float("inf"), float("inf"), 0.5, 0.0, 0.25, 25, 2.0**-9, False)
    )
    return Profile({"fp32": fine, "fp16": lost}, failed, 1.2, 64)


def test_the_table_fits_a_terminal() -> None:
    """Aligned, at most 100 columns; what failed has a row, and a scaler a note."""
    lines = format_precision_table(profile(bf16="out of memory")).splitlines()
    assert max(map(len, lines)) <= 100
    assert len({len(line) for line in lines[2:4]}) == 1
    assert "  bf16    out of memory" in lines
    assert "  fp16: it overflows at any scale; without a scaler 25 % would underflow" in lines
    assert lines[2].split()[:6] == ["fp32", "12.3", "ms", "5,184", "1.00", "×"]


def test_the_picture_is_drawn_whatever_was_found() -> None:
    """Overflows, a single precision, none at all."""
    one = profile()
    for found in (
        one,
        Profile({"fp32": one.measured["fp32"]}, {}, 0.0, 64),
        Profile({}, {"fp32": "out of memory"}, 1.0, 1),
    ):
        with Image.open(BytesIO(draw_precision_plot(found))) as picture:
            assert picture.height > 100


def key(*words: str) -> dict[str, Any]:
    config = compose([*WORDS, *words])
    components = build_partial_components(config)
    return recommendation_key(config, components.device, components.dataset.fingerprint)


def planted(name: str, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """Let a recommendation be remembered for these runs; measuring is an error."""
    store_recommendation(key(*words), Recommendation(name, "as planted"))
    monkeypatch.setattr(remembered, "profile_precisions", lambda *_: pytest.fail("it was measured"))


@pytest.fixture
def cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def record(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text())


@pytest.mark.usefixtures("cached")
def test_auto_is_the_same_run_as_what_it_chose(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Bit for bit; run.json says what was chosen, and another choice makes another experiment of it."""
    hashes = []
    for name in ("bf16", "fp32"):
        planted(name, monkeypatch)
        fit(WORDS, tmp_path / f"auto {name}")
        hashes.append(record(tmp_path / f"auto {name}")["experiment_hash"])
    fit([*WORDS, "precision=bf16"], tmp_path / "bf16")
    states = [state_of(tmp_path / run, "last")["model"] for run in ("auto bf16", "bf16", "auto fp32")]
    assert same(states[0], states[1])
    assert not same(states[0], states[2])
    assert record(tmp_path / "auto bf16")["precision"]["name"] == "bf16"
    assert hashes[0] != hashes[1]
    assert set(hashes) < set(ExperimentHashes().compute_hashes(compose(WORDS)))  # a sweep accepts both
    asked = ReportRequest("run", "", "test", "best")
    settings = [read_compared_run(tmp_path / f"auto {name}", asked, ALLOW_ALL).settings for name in ("bf16", "fp32")]
    assert settings[0] != settings[1]  # seeds of one choice are not put together with those of the other


@pytest.mark.usefixtures("cached")
def test_a_run_goes_on_and_is_evaluated_in_what_it_chose(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Though something else is recommended by now: the bits and the report of an unbroken run; nothing is measured."""
    planted("bf16", monkeypatch)
    fit(WORDS, tmp_path / "whole")
    stop_at(build_trainer(compose(WORDS), tmp_path / "broken"), 30)
    planted("fp32", monkeypatch)
    resume(tmp_path / "broken").fit()
    assert differences(tmp_path / "whole", tmp_path / "broken") == []
    before = (tmp_path / "whole" / "reports" / "test" / "predictions.csv").read_bytes()
    evaluate_run(tmp_path / "whole", "test", "best", ALLOW_ALL, None, ProgressBars(False))
    assert (tmp_path / "whole" / "reports" / "test" / "predictions.csv").read_bytes() == before
    found = record(tmp_path / "whole")
    (tmp_path / "whole" / "run.json").write_text(
        json.dumps(found | {"precision": found["precision"] | {"name": "fp32"}})
    )
    evaluate_run(tmp_path / "whole", "test", "best", ALLOW_ALL, None, ProgressBars(False))
    assert (tmp_path / "whole" / "reports" / "test" / "predictions.csv").read_bytes() != before  # so it does matter


def test_a_check_remembers_what_it_recommends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also over what was remembered before: who measures anew wants to know, and means it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    planted("fp16", monkeypatch, "epochs=9")
    monkeypatch.setattr(examination, "profile_precisions", lambda *_: profile())
    finding = examination.run_precision_check(compose(WORDS))
    assert finding.verdict_text.startswith("fp32: nothing else is 1.1 times as fast (fp16 0.00).\n")
    assert remembered.load_recommendation(key(), ("fp32", "fp16")).name == "fp32"


@pytest.mark.usefixtures("cached")
@pytest.mark.parametrize("word", ["augment=crop_flip", "sampler=balanced", "dataset.split_seed=1"])
def test_other_data_or_augmentation_are_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, word: str) -> None:
    """A recommendation that was remembered for other windows is not used."""
    planted("bf16", monkeypatch)
    with pytest.raises(pytest.fail.Exception, match="it was measured"):
        build_trainer(compose([*WORDS, word]), tmp_path / "run")


def test_amp_on_another_device_is_another_experiment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is fp16 on CUDA, and bf16 elsewhere. A sweep counts only the run in the format that a job would have."""
    words = ["threads=1", "progress=false", "model=mlp", "epochs=1", "precision=amp"]
    fit(words, tmp_path / "job")
    job = Job(0, "job", (), compose(words))
    sweep = Sweep(tmp_path, (job,), "", False, False)
    assert plan_sweep(sweep).finished == {"job": "job"}
    assert plan_sweep(replace(sweep, elsewhere=True)).finished  # another machine may have a GPU or none
    on_gpu = replace(job, config=compose([*words, "device=cuda"]))
    assert not set(ExperimentHashes().compute_hashes(job.config)) & set(
        ExperimentHashes().compute_hashes(on_gpu.config)
    )
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert plan_sweep(sweep).stale == {"job": "precision that the device chooses"}
    assert plan_sweep(replace(sweep, elsewhere=True)).finished


def test_seeds_of_amp_in_two_formats_are_two_groups(tmp_path: Path) -> None:
    """As with precision=auto: the format that the run computed in is compared."""
    fit([*WORDS[:-1], "precision=amp"], tmp_path / "0")
    shutil.copytree(tmp_path / "0", tmp_path / "1")
    found = record(tmp_path / "1")
    found["precision"] |= {"name": "fp16", "dtype": "float16"}
    (tmp_path / "1" / "run.json").write_text(json.dumps(found))
    asked = ReportRequest("run", "", "test", "best")
    settings = [read_compared_run(tmp_path / name, asked, ALLOW_ALL).settings["precision"] for name in "01"]
    assert [one["chosen"] for one in settings] == ["bf16", "fp16"]
