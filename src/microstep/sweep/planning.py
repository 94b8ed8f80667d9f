"""Plans a sweep: finished runs are skipped, interrupted ones are resumed, failed ones are run again."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from microstep.errors import format_error
from microstep.run.directory import clear_run_directory, has_checkpoint
from microstep.run.record import RunRecord
from microstep.sweep.definition import Job, Sweep, SweepPlan
from microstep.training.builders import build_dataset
from microstep.training.provenance import experiment_hash, possible_precisions, source_hash


def plan_sweep(sweep: Sweep) -> SweepPlan:
    """Return the plan of a sweep. Clears the directories of runs that start afresh.

    A run is identified by its experiment hash (config, data, source), not by its name: in a sweep that gets another
    key, earlier runs are found under their old names.
    """
    others = sorted(file.parent.name for file in sweep.directory.glob("*/run.json"))
    records = {name: RunRecord.read(sweep.directory / name) for name in (*others, *(job.name for job in sweep.jobs))}
    hashes = ExperimentHashes()
    finished_names = {str(r.experiment_hash): name for name, r in records.items() if r.status == "finished"}
    todo: list[Job] = []
    finished: dict[str, str] = {}
    stale: dict[str, str] = {}
    for job in sweep.jobs:
        directory, now = sweep.place(job), hashes.of(job.config)
        before = records[job.name]
        same = before.experiment_hash in now
        if done := [finished_names[one] for one in now if one in finished_names]:
            finished[job.name] = job.name if job.name in done else done[0]
        elif has_result(before, directory) and not same and not sweep.redo:
            stale[job.name] = hashes.difference(before, job.config)
        else:
            if not (same and has_result(before, directory)) and directory.exists():
                clear_run_directory(directory)
            todo.append(job)
    return SweepPlan(tuple(todo), finished, stale)


def has_result(record: RunRecord, directory: Path) -> bool:
    """Return whether a run is finished or can be resumed. A failed run is never resumed."""
    return record.status == "finished" or (has_checkpoint(directory) and record.status != "failed")


class ExperimentHashes:
    """Experiment hashes of jobs that have not begun. The fingerprint of each dataset is computed once."""

    def __init__(self) -> None:
        self.fingerprints: dict[str, str] = {}

    def of(self, config: DictConfig) -> list[str]:
        """Return the hash that the run of a job will have; several if a measurement chooses its precision."""
        return [experiment_hash(config, self.fingerprint(config), one) for one in possible_precisions(config)]

    def fingerprint(self, config: DictConfig) -> str:
        """Return the fingerprint of the data of a job; one that no run has if they cannot be loaded."""
        key = json.dumps(OmegaConf.to_container(config.dataset, resolve=True), default=str)
        if key not in self.fingerprints:
            try:
                dataset = build_dataset(config, torch.device("cpu"), num_workers=config.num_workers)
                self.fingerprints[key] = dataset.fingerprint
            except Exception as error:  # a user's dataset may raise anything; the run itself will report it
                self.fingerprints[key] = f"none: {format_error(error)}"
        return self.fingerprints[key]

    def difference(self, before: RunRecord, config: DictConfig) -> str:
        """Return what has changed since a run: data, source or config."""
        if before.fingerprint != self.fingerprint(config):
            return "data"
        return "source" if before.source_hash != source_hash(config) else "config"
