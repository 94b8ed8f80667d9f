"""Plans a sweep: finished runs are skipped, others are resumed or run again."""

import json
from contextlib import suppress
from itertools import product
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from microstep.config.experiment import cut_sizes, flatten
from microstep.errors import CheckpointRefused, format_error
from microstep.run.checkpoints.checkpoints import Checkpoints
from microstep.run.directory import clear_run_directory, has_checkpoint
from microstep.run.record import RunRecord
from microstep.run.saved_run import SavedRun
from microstep.sweep.definition import Job, Sweep, SweepPlan
from microstep.training.builders import build_dataset
from microstep.training.provenance import experiment_hash, possible_precisions, source_hash
from microstep.training.source import digest_files


def plan_sweep(sweep: Sweep, hashes: "ExperimentHashes | None" = None) -> SweepPlan:
    """Return the plan of a sweep. Clears the directories of runs that start from the beginning.

    A run is identified by its experiment hash (config, data, source), not by its name. If another key is added to a
    sweep, earlier runs are found under their old names. `hashes` keeps what a study's earlier plans have computed.
    """
    others = sorted(file.parent.name for file in sweep.directory.glob("*/run.json"))
    records = {name: RunRecord.read(sweep.directory / name) for name in (*others, *(job.name for job in sweep.jobs))}
    finished_names = {str(record.experiment_hash): name for name, record in records.items() if sweep.has_ended(record)}
    hashes = hashes or ExperimentHashes(sweep.elsewhere)
    jobs_to_run, finished, stale = list[Job](), dict[str, str](), dict[str, str]()
    for job in sweep.jobs:
        directory, record = sweep.get_directory(job), records[job.name]
        files = find_files_of_run(job.config, SavedRun(directory, record, "run")) | digest_files(job.config)
        job_hashes, usable = hashes.compute_hashes(job.config, files), has_result(record, directory)
        same = record.experiment_hash in job_hashes
        if names := [finished_names[digest] for digest in job_hashes if digest in finished_names]:
            finished[job.name] = job.name if job.name in names else names[0]
        elif usable and not same and not sweep.redo:
            stale[job.name] = hashes.describe_difference(record, job.config)
        else:
            if not (same and usable and has_intact_checkpoint(directory)) and directory.exists():
                clear_run_directory(directory)
            jobs_to_run.append(job)
    return SweepPlan(tuple(jobs_to_run), finished, stale)


def has_result(record: RunRecord, directory: Path) -> bool:
    """Return whether a run has finished or can be resumed: neither divergence nor an error in its code ended it."""
    is_resumable = record.status != "failed" or record.resumable
    return record.status == "finished" or (is_resumable and has_checkpoint(directory))


def has_intact_checkpoint(directory: Path) -> bool:
    with suppress(CheckpointRefused):
        checkpoints = Checkpoints(directory / "checkpoints")
        return any(entry is not None and checkpoints.is_intact(entry) for entry in checkpoints.entries.values())
    return False


class ExperimentHashes:
    """Experiment hashes of jobs that have not started. The fingerprint of each dataset is computed once."""

    def __init__(self, elsewhere: bool = False) -> None:
        self.elsewhere, self.fingerprints = elsewhere, dict[str, str]()

    def compute_hashes(self, config: DictConfig, files: dict[str, str] | None = None) -> list[str]:
        """Return the hash that the run of a job will have; several if what it finds is not known yet."""
        fingerprint, names = self.get_fingerprint(config), possible_precisions(config, self.elsewhere)
        return [experiment_hash(config, fingerprint, found, files) for found in product(names, cut_sizes(config))]

    def get_fingerprint(self, config: DictConfig) -> str:
        """Return the fingerprint of a job's data; one that no run has if the data cannot be loaded."""
        key = json.dumps(OmegaConf.to_container(config.dataset, resolve=True), default=str)
        if key not in self.fingerprints:
            try:
                dataset = build_dataset(config, torch.device("cpu"), num_workers=config.num_workers)
                self.fingerprints[key] = dataset.fingerprint
            except Exception as error:  # a user's dataset may raise anything; the run itself will report it
                self.fingerprints[key] = f"none: {format_error(error)}"
        return self.fingerprints[key]

    def describe_difference(self, record: RunRecord, config: DictConfig) -> str:
        if record.fingerprint != self.get_fingerprint(config):
            return "data"
        if record.source_hash != source_hash(config):
            return "source"
        if any(record.files.get(key, digest) != digest for key, digest in digest_files(config).items()):
            return "content of a file that the config names"
        names = possible_precisions(config, self.elsewhere)
        return "config" if None in names or record.precision in names else "precision that the device chooses"


def find_files_of_run(config: DictConfig, run: SavedRun) -> dict[str, str]:
    """Return the digests in a run's record of files that the config names alike; they may be gone by now."""
    before = dict(flatten(run.plain_config)) if run.record.files else {}
    return {key: found for key, found in run.record.files.items() if before.get(key) == OmegaConf.select(config, key)}
