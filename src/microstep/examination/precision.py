"""check=precision: what each precision costs and loses here, and which to take."""

from __future__ import annotations

from omegaconf import DictConfig

from microstep.components.precision.presets import candidates
from microstep.examination.experiments import subject
from microstep.examination.finding import Finding
from microstep.examination.precision_picture import precision_picture
from microstep.examination.precision_table import precision_table
from microstep.training import device as machine
from microstep.training.builders import build_trial
from microstep.training.components import Trial
from microstep.training.profiling.profile import Profile, profiled
from microstep.training.profiling.recommendation import keep, recommendation
from microstep.training.provenance import weighed
from microstep.training.run_info import batch_row
from microstep.utils.tables import format_fields
from microstep.utils.terminal import say


def look(config: DictConfig) -> Finding:
    """Measure what an experiment's step costs and loses in each precision; recommend one, which `precision=auto` takes.

    Raises:
        MicrostepError: for what training would refuse, and where fp64 can't be computed.
    """
    trial = build_trial(config)
    names = candidates(trial.device)
    say(f"measuring {', '.join(names)} …")
    profile = profiled(trial, names)
    found = recommendation(profile)
    keep(weighed(config, trial.device), found)
    page = f"{format_fields(summary(config, trial))}\n\n{precision_table(profile)}"
    numbers = {"recommendation": vars(found), **profile.plain()}
    typed = f"Type precision={found.name}, or precision=auto, which takes it from now on."
    sentence = f"{found.name}: {found.reason}.\n{typed}"
    return Finding(page, sentence, numbers, {"precision": precision_picture(profile)}, curves(profile))


def summary(config: DictConfig, trial: Trial) -> dict[str, str]:
    """Return what was measured, by name."""
    return {
        **subject(config, trial.dataset, trial.model),
        "device": machine.describe(trial.device),
        "batch": batch_row(config),
    }


def curves(profile: Profile) -> dict[str, list[float]]:
    """Return the figures that TensorBoard shows."""
    figures: dict[str, list[float]] = {}
    for name, one in profile.measured.items():
        figures[f"check/{name}/step_seconds"] = [one.seconds]
        figures[f"check/{name}/gradient_drift"] = [one.accuracy.gradient_drift]
        figures[f"check/{name}/peak_bytes"] = [float(one.peak_bytes)]
    return figures
