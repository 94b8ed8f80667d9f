"""A main effect is over runs matched in all other keys; without such runs there is none."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest

from microstep.config.compose import Composer, compose
from microstep.config.experiment import micro_batch_size
from microstep.config.search_path import CONF
from microstep.config.sweep_jobs import compose_jobs
from microstep.sweep.summary.effects import MainEffect, compute_main_effects, find_accum_confounding
from microstep.sweep.summary.reading import read_sweep
from microstep.sweep.summary.study import SweepTable, tabulate
from microstep.sweep.summary.write import write_summary
from tests.sweep.summary.sweeps import plant_index, plant_run, plant_sweep, record

GRID = {"precision": ["fp32", "amp"], "accum": [1, 2, 4]}


def additive(values: dict[str, str]) -> float:
    """Return a metric to which each key adds its own effect."""
    return {"fp32": 0.5, "amp": 0.52}[values["precision"]] - 0.03 * int(values["accum"])


def tabulated(directory: Path) -> SweepTable:
    return tabulate(read_sweep(directory))


def effects(directory: Path) -> dict[str, MainEffect]:
    return {effect.key: effect for effect in compute_main_effects(tabulated(directory))}


def test_on_a_balanced_grid_it_is_the_difference_of_the_means(tmp_path):
    """Computed by hand: amp adds 0.02 at every `accum`, and each accum subtracts its own effect, in 6 runs of 6."""
    found = effects(plant_sweep(tmp_path / "s", GRID, additive))
    assert found["precision"].levels == ("fp32", "amp")
    assert [found["precision"].sample_at(index).mean for index in (0, 1)] == pytest.approx([0.43, 0.45])
    assert (found["precision"].difference_at(1).mean, found["precision"].difference_at(1).std) == pytest.approx(
        (0.02, 0)
    )
    assert [found["accum"].sample_at(index).mean for index in (0, 1, 2)] == pytest.approx([0.48, 0.45, 0.39])
    assert (found["accum"].num_used, found["accum"].num_finished) == (6, 6)


def test_on_an_incomplete_grid_only_what_has_a_partner_counts(tmp_path):
    """Without amp at accum=4, precision is compared over 4 runs, accum over 3: a plain mean would be wrong by 0.04."""
    directory = plant_sweep(tmp_path / "s", GRID, additive)
    shutil.rmtree(directory / "accum-4_precision-amp")
    found = effects(directory)
    assert found["precision"].difference_at(1).mean == pytest.approx(0.02)
    assert (found["precision"].num_used, found["precision"].num_finished) == (4, 5)
    assert [found["accum"].sample_at(index).mean for index in (0, 1, 2)] == pytest.approx([0.47, 0.44, 0.38])
    assert found["accum"].num_used == 3
    write_summary(directory, html=False)
    text = (directory / "summary.md").read_text()
    assert "precision: the grid is incomplete. The effect is over 4 of 5 finished runs" in text


def test_where_nothing_matches_there_is_no_effect(tmp_path):
    """Two runs that differ in two keys have no main effect, and the summary says so."""
    directory = plant_index(tmp_path / "s", {"a": ["accum=1", "precision=fp32"], "b": ["accum=2", "precision=amp"]})
    plant_run(directory / "a", record(0.5, 0.5))
    plant_run(directory / "b", record(0.9, 0.9))
    assert [effect.matches for effect in effects(directory).values()] == [(), ()]
    write_summary(directory)
    assert "accum: no main effect" in (directory / "summary.md").read_text()


def test_a_value_without_a_finished_run_is_named(tmp_path):
    """The effect of the other values is still shown."""
    directory = plant_sweep(tmp_path / "s", GRID, additive)
    for precision in GRID["precision"]:
        plant_run(directory / f"accum-4_precision-{precision}", {"status": "failed", "error": "no memory"})
    assert effects(directory)["accum"].difference_at(1).mean == pytest.approx(-0.03)
    write_summary(directory, html=False)
    assert "accum: no run has finished at 4." in (directory / "summary.md").read_text()


def test_the_seed_comes_last(tmp_path):
    """The seed is the last key, in whatever order the keys were typed."""
    grid = {"seed": [0, 1], "task": ["a", "b"], "accum": [1, 2]}
    assert list(effects(plant_sweep(tmp_path / "s", grid, lambda v: 0.5))) == ["task", "accum", "seed"]


def test_where_accum_changed_the_batch_the_command_that_separates_them_is_given(tmp_path):
    """The command composes; all of its jobs have one effective batch size, and `accum` still varies."""
    directory = plant_sweep(tmp_path / "s", GRID, additive, effective_batch_size=lambda v: 30 * int(v["accum"]))
    write_summary(directory)
    for name in ("summary.md", "summary.html"):
        assert "accum changed the effective batch size as well" in (directory / name).read_text()
    note = find_accum_confounding(tabulated(directory))
    assert note is not None and note.sizes == (30, 60, 120)
    assert note.command in (directory / "summary.md").read_text()
    python, program, multirun, *words = shlex.split(note.command)
    assert (python, program, multirun) == ("python", "train.py", "-m")
    with Composer.open(CONF, "train") as composer:
        jobs = compose_jobs(composer, words)
    assert {micro_batch_size(job) * job.accum for job in jobs} == {32}  # the least from 30 on that 1, 2 and 4 divide
    assert sorted({job.accum for job in jobs}) == [1, 2, 4] and len(jobs) == 6
    assert {job.sweep for job in jobs} == {"s_same_batch"}


def test_what_set_the_batch_size_makes_way_for_it(tmp_path):
    """The command sets one batch size, because both are refused; other words are kept as typed."""
    directory = plant_sweep(
        tmp_path / "s", {"accum": [1, 3]}, lambda v: 0.5, effective_batch_size=lambda v: 20 * int(v["accum"])
    )
    index = (directory / "sweep.json").read_text()
    typed = "python train.py -m batch_size=20 accum=1,3 model.width=16 hydra.sweep.dir=x resume=auto"
    (directory / "sweep.json").write_text(index.replace("python train.py -m accum=1,3 sweep=s", typed))
    note = find_accum_confounding(tabulated(directory))
    assert note is not None
    assert note.command == "python train.py -m accum=1,3 model.width=16 effective_batch_size=21 sweep=s_same_batch"
    compose(shlex.split(note.command)[4:-1])


@pytest.mark.parametrize(
    ("grid", "size"),
    [(GRID, 64), ({"precision": ["fp32", "amp"]}, 64), ({"batch_size": [8, 16], "accum": [1]}, None)],
    ids=["same batch", "no accum", "other key"],
)
def test_otherwise_nothing_is_said_of_it(tmp_path, grid, size):
    """With one effective batch size, or with `accum` not swept, there is nothing to separate."""
    facts = {"effective_batch_size": size or (lambda v: int(v["batch_size"]))}
    assert find_accum_confounding(tabulated(plant_sweep(tmp_path / "s", grid, lambda v: 0.5, **facts))) is None
