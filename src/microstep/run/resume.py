"""Plans a resume from the config of a run and the command line. Imports no torch: a mistake is reported at once."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from microstep.config.allowlist import Allowlist
from microstep.config.compose import Composer
from microstep.config.experiment import LOGGER, NEUTRAL_KEYS, RESUMABLE_KEYS, drop_keys, extract_experiment, flatten
from microstep.config.signatures import find_signature
from microstep.config.targets import current, renamed
from microstep.errors import ConfigError
from microstep.run.saved_run import OVERRIDABLE_KEYS, RESUME_KEYS, SavedRun, apply_overrides

LENGTH_KEYS = ("epochs", "steps")  #: keys that make a run longer
AUTO_RESUME = "auto"  #: resume=auto: resume the run of the job's directory if there is one, else start one


@dataclass(frozen=True)
class ResumePlan:
    """Plan of a resume."""

    directory: Path
    config: DictConfig  #: of the run, with the overrides of all resumes
    overrides: dict[str, Any]  #: of this resume, by dotted key
    finished: bool  #: whether nothing is left to do
    allowlist: Allowlist  #: names that the config may use


def plan_resume(
    directory: Path, composer: Composer, overrides: Sequence[str], allowlist: Allowlist, key: str = "resume"
) -> ResumePlan:
    """Return the plan of `resume=RUN_DIR`: the config of the run with the overrides of the command line.

    Raise ConfigError if the directory holds no run, or the overrides describe another experiment.
    """
    keys = typed_keys(overrides)
    run = SavedRun.read(directory, key)
    if "experiment" in keys:
        raise ConfigError(run.subject, "experiment= describes a whole run, and it has its own", "leave it out")
    config = run.config(allowlist)
    return make_plan(run, config, composer.compose_resumed(config, overrides), keys, allowlist)


def plan_auto_resume(directory: Path, job: DictConfig, allowlist: Allowlist) -> ResumePlan:
    """Return the plan of `resume=auto` for a job's directory. Raise ConfigError if its run is another experiment."""
    run = SavedRun.read(directory, "resume")
    config = run.config(allowlist)
    check_no_changes(experiment_differences(config, job), RESUMABLE_KEYS, config, run.subject)
    return make_plan(run, config, job, sorted(OVERRIDABLE_KEYS), allowlist)


def make_plan(run: SavedRun, config: DictConfig, job: DictConfig, keys: list[str], allowlist: Allowlist) -> ResumePlan:
    length = {key: job[key] for key in LENGTH_KEYS if key in keys and job[key] != config[key]}
    if length and run.record.stopped:
        typed = " ".join(f"{key}={value}" for key, value in length.items())
        raise ConfigError(typed, f"the run has stopped: {run.record.stopped}", "start a new run with another stop=")
    overrides = resume_overrides(config, run.absolute_paths(job, directory=Path.cwd()), keys, run.subject)
    resumed = apply_overrides(config, overrides, run.subject)
    finished = run.record.status == "finished" and not length
    return ResumePlan(run.directory.resolve(), resumed, overrides, finished, allowlist)


def should_resume(resume: str | None, directory: Path) -> bool:
    return resume is not None and (resume != AUTO_RESUME or (directory / "config.yaml").exists())


def typed_keys(overrides: Sequence[str]) -> list[str]:
    keys = [override.lstrip("+~").split("=")[0].split("@")[0] for override in overrides]
    keys = [node if (node := key.partition(".")[0]) == LOGGER else key for key in keys]
    return [key for key in keys if not key.startswith("hydra") and key not in RESUME_KEYS]


def resume_overrides(run: DictConfig, job: DictConfig, keys: Sequence[str], subject: str) -> dict[str, Any]:
    """Return the values that the typed keys change in a run. Raise ConfigError if they make it another experiment."""
    typed = dict(pair for key in keys for pair in flatten(OmegaConf.select(job, key), key))
    neutral = {key for key, value in typed.items() if key in NEUTRAL_KEYS and value != OmegaConf.select(run, key)}
    different = neutral | experiment_differences(run, job).keys()
    changed = {key: value for key, value in typed.items() if key in different}
    check_no_changes(changed, OVERRIDABLE_KEYS, run, subject)
    for key in changed.keys() & LENGTH_KEYS:
        check_length(run, key, changed[key])
    return changed


def experiment_differences(run: DictConfig, job: DictConfig) -> dict[str, Any]:
    """Return the values of the job's experiment that differ from the run's; None for a key that only the run has."""
    have, want = (dict(flatten(renamed(extract_experiment(config), current))) for config in (run, job))
    return {key: want.get(key) for key in {**have, **want} if have.get(key) != want.get(key)}


def check_no_changes(changed: Mapping[str, Any], except_keys: Set[str], run: DictConfig, subject: str) -> None:
    forbidden = {key: value for key, value in changed.items() if key not in except_keys}
    if forbidden:
        values = ", ".join(f"{key}={value} (it has {OmegaConf.select(run, key)})" for key, value in forbidden.items())
        raise ConfigError(subject, f"this is another experiment: {values}", "leave it as it was, or start a new run")


def check_length(run: DictConfig, key: str, length: int | None) -> None:
    """Refuse fewer epochs or steps, and more of them if learning rate or average depend on their number."""
    unit = "epochs" if run.steps is None else "steps"
    if key != unit or length is None:
        raise ConfigError(f"{key}={length}", f"the length of the run is {unit}={run[unit]}", f"type {unit}=N")
    if length < run[unit]:
        raise ConfigError(f"{unit}={length}", f"the run has {run[unit]}", "choose as many or more")
    for group, name, other in (("scheduler", "learning rate", "constant"), ("average", "average", "ema")):
        signature = find_signature(str(run[group].get("_target_")))
        if signature is None or "total_steps" in signature.parameters or depends_on_length(run, unit):
            reason = f"its {name} was planned for {run[unit]} {unit}"
            raise ConfigError(f"{unit}={length}", reason, f"start a new run, or use {group}={other} next time")


def depends_on_length(run: DictConfig, unit: str) -> bool:
    longer = OmegaConf.merge(run, {unit: run[unit] + 1})
    one, other = (drop_keys(extract_experiment(config), {unit}) for config in (run, longer))  # type: ignore[arg-type]
    return one != other
