"""Sinks of a run: JSON lines, MLflow, Weights & Biases. `run_dir` is the run directory."""

import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

from microstep.utils.files import append_bytes, expand_home
from microstep.utils.json_files import replace_nonfinite


class JsonLines:
    """Appends lines of JSON to `path`, by default log.jsonl in the run directory. Each has the id of its run."""

    def __init__(self, run_dir: Path, path: str | None = None) -> None:
        self.run_dir, self.path = run_dir, Path(expand_home(path)) if path else run_dir / "log.jsonl"

    def open(self, known: str | None, name: str, settings: Mapping[str, Any]) -> str:
        self.run = known or uuid4().hex
        lines = map(json.loads, self.path.read_bytes().splitlines() if self.path.exists() else ())
        points = [line for line in lines if line["run"] == self.run and "step" in line]
        self.last = [*points[-1], points[-1]["step"]] if points else []
        self.append(name=name, settings=dict(settings))
        return self.run

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        if self.last != ["run", "step", *values, step]:  # a killed run may have written it and not recorded that
            self.append(step=step, **values)

    def file(self, path: Path) -> None:
        self.append(file=str(path.relative_to(self.run_dir)))

    def end(self, failed: bool) -> None:
        self.append(failed=failed)

    def append(self, **content: Any) -> None:
        append_bytes(self.path, json.dumps(replace_nonfinite({"run": self.run, **content})).encode() + b"\n")


class MLflow:
    """Sends to MLflow (Zaharia et al., 2018): a server, or `sqlite:///FILE` with files in `mlartifacts` beside it."""

    def __init__(self, run_dir: Path, tracking_uri: str, experiment: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        self.entities, self.tracking = import_module("mlflow.entities"), import_module("mlflow.tracking")
        self.run_dir, self.uri, self.experiment, self.artifacts = run_dir, tracking_uri, experiment, None
        if tracking_uri.startswith("sqlite:///"):
            self.artifacts = str(Path(tracking_uri.removeprefix("sqlite:///")).absolute().with_name("mlartifacts"))
            Path(self.artifacts).mkdir(parents=True, exist_ok=True)
            with suppress(Exception):  # make the database, which takes seconds; `open` raises the error again
                self.tracking.MlflowClient(tracking_uri)

    def open(self, known: str | None, name: str, settings: Mapping[str, Any]) -> str:
        self.client = self.tracking.MlflowClient(self.uri)
        self.id, self.is_resumed = str(known), known is not None
        if not self.is_resumed:
            found = self.client.get_experiment_by_name(self.experiment)
            group = found.experiment_id if found else self.client.create_experiment(self.experiment, self.artifacts)
            self.id = str(self.client.create_run(group, run_name=name).info.run_id)
            params = [self.entities.Param(key, str(value)) for key, value in settings.items()]
            self.client.log_batch(self.id, params=params[:100])  # it takes no more at once
        self.client.update_run(self.id, status="RUNNING")
        return self.id

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        now, names = int(time.time() * 1000), [re.sub(r"[^\w\-. :/]", "_", tag) for tag in values]
        before = self.client.get_metric_history(self.id, names[0]) if self.is_resumed else ()
        if all(metric.step != step for metric in before):  # a killed run may have sent it and not recorded that
            metrics = [self.entities.Metric(*pair, now, step) for pair in zip(names, values.values(), strict=True)]
            self.client.log_batch(self.id, metrics=metrics)
        self.is_resumed = False

    def file(self, path: Path) -> None:
        self.client.log_artifact(self.id, path, path.parent.relative_to(self.run_dir).as_posix().strip(".") or None)

    def end(self, failed: bool) -> None:
        self.client.set_terminated(self.id, "FAILED" if failed else "FINISHED")


class WeightsAndBiases:
    """Sends to Weights & Biases (Biewald, 2020). Offline runs are in `wandb` in the run directory, for `wandb sync`."""

    def __init__(self, run_dir: Path, project: str, mode: str = "offline") -> None:
        self.wandb, self.run_dir = import_module("wandb"), run_dir
        self.options = {"project": project, "mode": mode, "dir": run_dir, "resume": "allow", "reinit": "create_new"}
        self.wandb.setup(self.wandb.Settings(console="off", silent=True))  # starts its process

    def open(self, known: str | None, name: str, settings: Mapping[str, Any]) -> str:
        self.run = self.wandb.init(**self.options, id=known, name=name, config=dict(settings))
        return str(self.run.id)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self.run.log({**values, "window" if next(iter(values)).startswith("train/") else "epoch": step})

    def file(self, path: Path) -> None:
        self.run.save(str(path), base_path=str(self.run_dir), policy="now")

    def end(self, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))
