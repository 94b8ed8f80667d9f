"""The tables rank on validation and have the means and standard deviations over seeds, with every run."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from microstep.sweep.summary.reading import read_sweep
from microstep.sweep.summary.story import list_facts
from microstep.sweep.summary.study import SweepTable, normalize_value, tabulate
from microstep.sweep.summary.write import write_summary
from tests.sweep.summary.sweeps import plant_index, plant_run, plant_sweep, record

SCORES = {"fp32": (0.9, 0.93, 0.96), "amp": (0.91, 0.95, 0.94)}


def tabulated(directory: Path) -> SweepTable:
    return tabulate(read_sweep(directory))


def rows(directory: Path) -> list[dict[str, str]]:
    """Return summary.csv, freshly written."""
    write_summary(directory, html=False)
    with (directory / "summary.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def three_seeds(directory: Path) -> Path:
    grid = {"precision": ["fp32", "amp"], "seed": [0, 1, 2]}
    return plant_sweep(directory, grid, lambda v: SCORES[v["precision"]][int(v["seed"])])


def test_it_is_ranked_on_validation_never_on_test(tmp_path):
    """The setting with the best test metric but a worse validation metric isn't first."""
    val, test = {"fp32": 0.9, "amp": 0.8}, {"fp32": 0.5, "amp": 0.99}
    for name, one, other in (("ours", val, test), ("turned", test, val)):
        plant_sweep(
            tmp_path / name,
            {"precision": ["fp32", "amp"]},
            lambda v, o=one: o[v["precision"]],
            lambda v, o=other: o[v["precision"]],
        )
    assert [s.label for s in tabulated(tmp_path / "ours").groups] == ["precision=fp32", "precision=amp"]
    assert [s.label for s in tabulated(tmp_path / "turned").groups] == ["precision=amp", "precision=fp32"]
    write_summary(tmp_path / "ours", html=False)
    text = (tmp_path / "ours" / "summary.md").read_text()
    assert "| 1 | `precision=fp32` | 0.9000 | 0.5000 | 1 |" in text
    assert "never ranked on" in text


@pytest.mark.parametrize("typed", ["auto", "amp"])
def test_what_was_chosen_at_the_start_is_said(tmp_path, typed):
    """Runs in two precisions, chosen by a measurement or the device, are two settings, each with its name."""
    for name, precision in (("seed-0", "fp16"), ("seed-1", "bf16")):
        plant_run(tmp_path / name, record(0.9, 0.9, precision={"name": precision}))
    plant_index(tmp_path, {f"seed-{n}": [f"precision={typed}", f"seed={n}"] for n in (0, 1)})
    assert {s.label for s in tabulated(tmp_path).groups} == {f"precision={typed} (bf16)", f"precision={typed} (fp16)"}


def test_runs_trained_by_different_source_or_versions_are_told_of(tmp_path):
    """The summary names what differs, with all values; nothing is said if nothing does."""
    for name, torch in (("seed-0", "2.9"), ("seed-1", "2.9"), ("seed-2", "3.0")):
        plant_run(tmp_path / name, record(0.9, 0.9, source_hash="0123456789", versions={"torch": torch}))
    plant_index(tmp_path, {f"seed-{n}": [f"seed={n}"] for n in (0, 1)})
    assert "not trained by the same" not in dict(list_facts(tabulated(tmp_path)))
    plant_index(tmp_path, {f"seed-{n}": [f"seed={n}"] for n in (0, 1, 2)})
    assert dict(list_facts(tabulated(tmp_path)))["not trained by the same"] == "torch 2.9, 3.0"


def test_the_source_is_compared_between_runs_of_the_same_packages(tmp_path):
    """Models of one's own add their package to the source, which is no edit; an edit is told of."""
    sources = {"mlp": "a", "mine": "b"}
    plant_sweep(
        tmp_path, {"model": [*sources], "seed": [0, 1]}, lambda v: 0.9, source_hash=lambda v: sources[v["model"]]
    )
    for run in tmp_path.glob("model-*"):
        target = "mine.net" if "mine" in run.name else "microstep.components.model.mlp"
        (run / "config.yaml").write_text(f"model:\n  _target_: {target}\n")
    assert "not trained by the same" not in dict(list_facts(tabulated(tmp_path)))
    record = json.loads((tmp_path / "model-mine_seed-1" / "run.json").read_text())
    (tmp_path / "model-mine_seed-1" / "run.json").write_text(json.dumps(record | {"source_hash": "c"}))
    assert dict(list_facts(tabulated(tmp_path)))["not trained by the same"] == "source b, c"


def test_a_metric_whose_direction_is_min_is_ranked_the_other_way_round(tmp_path):
    """The monitored metric and its direction are those that the runs record."""

    def errors(values):
        return {"val": {"rmse": float(values["model"])}, "test": {"rmse": 1.0}}

    facts = {"metrics": errors, "monitor": "rmse", "direction": "min"}
    found = tabulated(plant_sweep(tmp_path / "s", {"model": [3, 1, 2]}, lambda v: 0.5, **facts))
    assert [s.label for s in found.groups] == ["model=1", "model=2", "model=3"]
    write_summary(tmp_path / "s", html=False)
    assert "the lower the better" in (tmp_path / "s" / "summary.md").read_text()


def test_means_and_deviations_are_numpys(tmp_path):
    """A setting has the mean and the sample standard deviation (n − 1) over its seeds; a single run has no ±."""
    settings = {s.label.partition("=")[2]: s for s in tabulated(three_seeds(tmp_path / "s")).groups}
    for name, scores in SCORES.items():
        assert settings[name].val.mean == pytest.approx(np.mean(scores), rel=1e-12)
        assert settings[name].val.std == pytest.approx(np.std(scores, ddof=1), rel=1e-9)
    write_summary(tmp_path / "s", html=False)
    assert "| 1 | `precision=amp` | 0.9333 ± 0.0208 |" in (tmp_path / "s" / "summary.md").read_text()
    (one,) = tabulated(plant_sweep(tmp_path / "one", {}, lambda v: 0.5)).groups
    assert one.val.std is None


def test_what_the_seeds_can_not_tell_apart_is_said(tmp_path):
    """A caution is shown if two settings differ by less than the spread of their runs, and not otherwise."""
    three_seeds(tmp_path / "near")
    plant_sweep(
        tmp_path / "far", {"accum": [1, 2], "seed": [0, 1]}, lambda v: 0.1 * int(v["accum"]) + 0.001 * int(v["seed"])
    )
    plant_sweep(tmp_path / "single", {"accum": [1, 2]}, lambda v: 0.5)
    said = {}
    for name in ("near", "far", "single"):
        write_summary(tmp_path / name, html=False)
        said[name] = (tmp_path / name / "summary.md").read_text()
    assert "don't tell 1 other setting apart from the best" in said["near"]
    assert "apart" not in said["far"].partition("## ")[0]
    assert "Each setting has one run" in said["single"]


def test_summary_csv_has_a_row_a_run_with_every_digit(tmp_path):
    """Numbers are read back exactly."""
    directory = plant_sweep(
        tmp_path / "s", {"accum": [1, 2]}, lambda v: 1 / 3, lambda v: 2 / 7, train_seconds=0.1 + 0.2
    )
    found = rows(directory)
    assert [(row["run"], row["status"], row["accum"]) for row in found] == [
        ("accum-1", "finished", "1"),
        ("accum-2", "finished", "2"),
    ]
    assert (float(found[0]["val_accuracy"]), float(found[0]["test_accuracy"])) == (1 / 3, 2 / 7)
    assert (found[0]["train_seconds"], found[0]["peak_memory_bytes"], found[0]["epoch"]) == (
        repr(0.1 + 0.2),
        str(2**30),
        "4",
    )


def test_a_key_that_an_earlier_job_lacks_has_its_default(tmp_path):
    """If earlier jobs lack a new key, its value is that of run.json's choices or config.yaml."""
    jobs = {"a": ["seed=0"], "b": ["seed=0", "precision=amp", "optimizer.lr=0.10"], "c": ["seed=0", "accum=3"]}
    directory = plant_index(tmp_path / "s", jobs)
    for name in ("a", "b"):
        plant_run(directory / name, record(0.5, 0.5))
    (directory / "a" / "config.yaml").write_text("optimizer:\n  _target_: x\n  lr: 0.03\n")
    found = rows(directory)
    assert [(row["precision"], row["optimizer.lr"]) for row in found] == [
        ("fp32", "0.03"),
        ("amp", "0.1"),
        ("fp32", "0.03"),
    ]
    assert "seed" not in found[0]


def test_what_was_not_typed_is_written_as_what_was(tmp_path):
    """A precision, a list and a whole number have one spelling, whichever command or recipe chose them.

    A key that a run of an older version lacks has the value that the run used.
    """
    jobs = {"a": ["precision=amp", "task.metrics=[top5]", "max_grad_norm=1", "monitor=null", "experiment=x"], "b": []}
    directory = plant_index(tmp_path / "s", jobs)
    for name in jobs:
        plant_run(directory / name, record(0.5, 0.5, precision={"name": "bf16"}, choices={"precision": "amp"}))
    (directory / "b" / "config.yaml").write_text("task: {metrics: [top5]}\nmax_grad_norm: 1.0\n")
    assert tabulated(directory).rows == {"a": {"experiment": "x"}, "b": {"experiment": "null"}}


def test_an_experiment_that_two_commands_name_differently_is_one_run(tmp_path):
    """It counts once: as finished if one of its runs has, also if the other was stopped, or has not started."""
    words = ["accum=2"], ["accum=2", "precision=fp32"]
    directory = plant_index(tmp_path / "s", {"stopped": words[0], "one": words[1], "two": words[1], "left": words[1]})
    plant_run(directory / "stopped", record(0.4, 0.4, experiment_hash="1", status="interrupted"))
    for name in ("one", "two"):
        plant_run(directory / name, record(0.5, 0.5, experiment_hash="1"))
    table = tabulated(directory)
    assert [run.name for run in table.runs] == ["one"]
    assert [group.val.values for group in table.groups] == [(0.5,)]


def test_no_resolver_of_a_runs_config_is_asked(tmp_path, monkeypatch):
    """A reference is shown as written, so an untrusted config.yaml can't bring a secret into the summary."""
    monkeypatch.setenv("MICROSTEP_SECRET", "swordfish")
    directory = plant_index(tmp_path / "s", {"a": [], "b": ["model.key=1"]})
    for name in ("a", "b"):
        plant_run(directory / name, record(0.5, 0.5))
    (directory / "a" / "config.yaml").write_text("model:\n  key: ${oc.env:MICROSTEP_SECRET}\n")
    assert rows(directory)[0]["model.key"] == "${oc.env:MICROSTEP_SECRET}"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.10", "1e-1"),
        ("True", "true"),
        ("'mlp'", "mlp"),
        ("2", "+2"),
        ("null", "None"),
        ("1.0", "1"),
        ("['a', 'b']", "[a,b]"),
    ],
)
def test_one_value_has_one_spelling(one, other):
    """Two spellings of a value are one value."""
    assert normalize_value(one) == normalize_value(other)


def test_names_that_change_no_result_are_no_setting(tmp_path):
    """Runs with other numbers of workers are not other settings."""
    directory = plant_index(tmp_path / "s", {"a": ["num_workers=0", "seed=0"], "b": ["num_workers=2", "seed=1"]})
    for name in ("a", "b"):
        plant_run(directory / name, record(0.5, 0.5))
    assert tabulated(directory).keys == ("seed",)


def test_a_stale_run_is_named_and_counts_for_nothing(tmp_path):
    """A run that the command no longer makes is shown as stale and left out of every comparison."""
    directory = three_seeds(tmp_path / "s")
    index = json.loads((directory / "sweep.json").read_text())
    (directory / "sweep.json").write_text(
        json.dumps(index | {"stale": {"precision-amp_seed-1": "source", "gone": "data"}})
    )
    found = {s.label: len(s.runs) for s in tabulated(directory).groups}
    assert found == {"precision=fp32": 3, "precision=amp": 2}
    assert [row["run"] for row in rows(directory) if row["status"] == "stale"] == ["precision-amp_seed-1", "gone"]


def test_runs_chosen_by_another_metric_are_not_ranked_with_the_rest(tmp_path):
    """Runs with another monitored metric are named, but not ranked."""
    directory = three_seeds(tmp_path / "s")
    plant_run(directory / "precision-amp_seed-2", record(0.99, 0.99, monitor="loss", direction="min"))
    assert "precision-amp_seed-2" not in {run.name for run in tabulated(directory).scored_runs}
    write_summary(directory, html=False)
    assert "chosen by another metric: precision-amp" in (directory / "summary.md").read_text().replace("\\", "")


def test_a_real_runs_files_are_understood(trained, tmp_path):
    """The summary reads the metrics, the curve and the seconds from the files of a real run."""
    directory = plant_index(tmp_path / "s", {"run": ["epochs=3"]})
    (directory / "run").symlink_to(trained)
    (row,) = rows(directory)
    said = json.loads((trained / "run.json").read_text())
    assert float(row["val_accuracy"]) == said["metrics"]["val"]["accuracy"]
    assert (row["status"], row["epoch"], row["effective_batch_size"]) == ("finished", "3", "64")
    write_summary(directory)
    page = (directory / "summary.html").read_text()
    assert "Validation accuracy by epoch" in page and "Validation accuracy by seconds" in page


def test_without_the_page_it_is_cheap(tmp_path):
    """After each of many jobs, csv and Markdown take milliseconds: 20 runs in under 0.15 s, on a busy machine too."""
    directory = plant_sweep(tmp_path / "s", {"accum": range(1, 11), "seed": [0, 1]}, lambda v: 0.5)
    write_summary(directory, html=False)
    took = []
    for _ in range(5):
        began = time.perf_counter()
        write_summary(directory, html=False)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.15
    assert not (directory / "summary.html").exists()


def test_what_renders_a_summary_is_imported_only_to_write_one():
    """Importing `write_summary` imports neither jinja2, matplotlib nor torch."""
    script = (
        "import sys; import microstep.sweep.summary.write; print({'jinja2', 'matplotlib', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
