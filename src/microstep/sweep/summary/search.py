"""Reads the trials of a search from its runs, and computes the importance of the searched keys."""

from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import fmean
from typing import Any

import numpy as np

from microstep.errors import escape_unprintable
from microstep.run.record import number, of_type, short_texts
from microstep.sweep.summary.study import NUMBER_PATTERN, SweepTable

MIN_TRIALS = 8  #: trials with a score without which no importance is computed


@dataclass(frozen=True)
class Trials:
    """Trials of a search that have a score: all of their runs have finished, and none was pruned."""

    number: int  #: with those without a score
    scores: dict[int, float]  #: by number of the trial
    values: dict[str, list[float] | list[str]]  #: of each key in these trials
    log_keys: set[str]


def read_trials(sweep: SweepTable) -> Trials:
    runs, scores, rows = {run.name: run for run in sweep.runs}, dict[int, float](), []
    repeats = max(1, int(number(sweep.study.get("repeats")) or 1))
    order = [runs.get(escape_unprintable(str(name))) for name in of_type(sweep.study.get("order"), list)]
    for trial, start in enumerate(range(0, len(order), repeats), 1):
        ended = [run for run in order[start : start + repeats] if run and run.status == "finished"]
        known = [run.get_metrics("val").get(sweep.monitor) for run in ended if not run.record.pruned_epoch]
        if len(found := [value for value in known if value is not None]) == repeats:
            scores[trial] = fmean(found)
            rows.append(sweep.rows[ended[0].name])
    typed = {key: text for key, text in short_texts(sweep.study.get("keys")).items() if key in sweep.keys}
    values = {key: read_values([row[key] for row in rows], text) for key, text in typed.items()}
    positive = {key for key, column in values.items() if all(isinstance(v, float) and v > 0 for v in column)}
    return Trials(len(order) // repeats, scores, values, {key for key in positive if "log" in typed[key]})


def read_values(texts: list[str], typed: str) -> list[float] | list[str]:
    are_numbers = ("interval(" in typed or "range(" in typed) and all(map(NUMBER_PATTERN.fullmatch, texts))
    return [float(text) for text in texts] if are_numbers else texts


def compute_importance(trials: Trials) -> dict[str, float]:
    """Return each key's share in the variance of the scores, the largest first; empty if it can't be computed.

    Hutter et al., An Efficient Approach for Assessing Hyperparameter Importance (ICML 2014).
    """
    if len(trials.values) < 2 or len(trials.scores) < MIN_TRIALS or find_spec("optuna") is None:
        return {}
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    columns = {key: np.unique(column, return_inverse=True)[1].tolist() for key, column in trials.values.items()}
    spaces: Any = {key: optuna.distributions.FloatDistribution(0, max(column)) for key, column in columns.items()}
    study, evaluator = optuna.create_study(), optuna.importance.FanovaImportanceEvaluator(seed=0)
    for score, *row in zip(trials.scores.values(), *columns.values(), strict=True):
        params = dict(zip(columns, row, strict=True))
        study.add_trial(optuna.trial.create_trial(value=score, params=params, distributions=spaces))
    with suppress(RuntimeError):  # all scores are equal
        return optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {}
