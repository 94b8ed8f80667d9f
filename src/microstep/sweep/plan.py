"""What is left of a sweep: what is finished is skipped, what was interrupted goes on, what failed is run again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from microstep.build import build_dataset
from microstep.directories import has_checkpoint
from microstep.identity import experiment_hash, possible_precisions, source_hash
from microstep.jobs import summarised
from microstep.roster import Job, Plan, Sweep
from microstep.sweep.records import cleared, record_of


def planned(sweep: Sweep) -> Plan:
    """Return what is left of a sweep; the places of runs that start afresh are empty afterwards.

    A run is known by its experiment's hash (what was described, data, source), not by its name: of a sweep that is
    widened by another key, what was run before is found under its old name.
    """
    others = sorted(file.parent.name for file in sweep.directory.glob("*/run.json"))
    records = {name: record_of(sweep.directory / name) for name in (*others, *(job.name for job in sweep.jobs))}
    hashes = Hashes()
    places = {str(r.get("experiment_hash")): name for name, r in records.items() if r.get("status") == "finished"}
    todo: list[Job] = []
    finished: dict[str, str] = {}
    stale: dict[str, str] = {}
    for job in sweep.jobs:
        place, now = sweep.place(job), hashes.of(job.config)
        before = records[job.name]
        same = before.get("experiment_hash") in now
        if done := [places[one] for one in now if one in places]:
            finished[job.name] = job.name if job.name in done else done[0]
        elif holds_a_result(before, place) and not same and not sweep.redo:
            stale[job.name] = hashes.difference(before, job.config)
        else:
            if not (same and holds_a_result(before, place)) and place.exists():
                cleared(place)
            todo.append(job)
    return Plan(tuple(todo), finished, stale)


def holds_a_result(record: Mapping[str, Any], place: Path) -> bool:
    """Say whether there is anything of a run to go on with, or to lose; of one that failed there isn't."""
    return record.get("status") == "finished" or (has_checkpoint(place) and record.get("status") != "failed")


class Hashes:
    """Experiment hashes of jobs that haven't begun; each data set is looked at once."""

    def __init__(self) -> None:
        self.fingerprints: dict[str, str] = {}

    def of(self, config: DictConfig) -> list[str]:
        """Return the hash that the job's run would have; several where a measurement will choose its precision."""
        return [experiment_hash(config, self.fingerprint(config), one) for one in possible_precisions(config)]

    def fingerprint(self, config: DictConfig) -> str:
        """Return the fingerprint of a job's data; nothing where they can't be had: no run is of those."""
        key = json.dumps(OmegaConf.to_container(config.dataset, resolve=True), default=str)
        if key not in self.fingerprints:
            try:
                dataset = build_dataset(config, torch.device("cpu"), num_workers=config.num_workers)
                self.fingerprints[key] = dataset.fingerprint
            except Exception as error:  # a data set of one's own may raise anything: its own run will say so
                self.fingerprints[key] = f"none: {summarised(error)}"
        return self.fingerprints[key]

    def difference(self, before: Mapping[str, Any], config: DictConfig) -> str:
        """Say in a word what has changed since a run."""
        data = before.get("data")
        if not isinstance(data, Mapping) or data.get("fingerprint") != self.fingerprint(config):
            return "data"
        return "source" if before.get("source_hash") != source_hash(config) else "config"
