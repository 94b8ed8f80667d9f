"""Jobs of a serial sweep do not affect each other, although they share a process."""

import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch

from microstep.sweep.launchers.isolation import PROCESS_STATE, TORCH_STATE, isolate_job
from microstep.utils import signals
from tests.conftest import fit
from tests.faults.runs import same, state_of
from tests.sweep.leaks import LEAKS

LEAST = ["model=mlp", "epochs=1"]


def settings() -> list[Any]:
    return [setting.read() for setting in (*TORCH_STATE, *PROCESS_STATE)]


def after(leak: Callable[[], Any], guard: Callable[[], AbstractContextManager[Any]], run: Path) -> dict[str, Any]:
    """Return the weights of a run that follows a leak; this process is restored afterwards."""
    with isolate_job():
        with guard():
            leak()
        fit(LEAST, run)
    return state_of(run, "last")["model"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run = tmp_path_factory.mktemp("alone") / "run"
    fit(LEAST, run)
    return state_of(run, "last")["model"]


@pytest.mark.parametrize("name", LEAKS)
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_what_a_job_changes_is_put_back(name: str) -> None:
    """Every setting is restored; without isolation, the leak would change one."""
    leak, _ = LEAKS[name]
    before = settings()
    with isolate_job():
        leak()
        assert settings() != before
    assert settings() == before


@pytest.mark.parametrize("name", [name for name, (_, shows) in LEAKS.items() if shows])
def test_the_next_job_is_the_same_as_alone(name: str, alone: dict[str, Any], tmp_path: Path) -> None:
    """The weights are equal bit for bit; without isolation they differ, or the training fails."""
    leak, _ = LEAKS[name]
    assert same(after(leak, isolate_job, tmp_path / "isolated"), alone)
    try:
        leaked = after(leak, nullcontext, tmp_path / "leaked")
    except Exception:
        return
    assert not same(leaked, alone)


def test_generators_go_on_where_they_were() -> None:
    """The states of Python's, NumPy's and torch's generators are restored after a job seeds them."""
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    with isolate_job():
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def test_plots_look_the_same() -> None:
    """matplotlib's settings are restored."""
    before = matplotlib.rcParams["font.size"]
    with isolate_job():
        matplotlib.rcParams["font.size"] = 99
    assert matplotlib.rcParams["font.size"] == before


def test_a_job_that_fails_is_isolated_too() -> None:
    """An exception or a stop passes through, and everything is restored."""
    before = settings()
    for error in (RuntimeError("planted"), signals.Stopped(15)):
        with pytest.raises(type(error)), isolate_job():
            torch.set_num_threads(3)
            raise error
    assert settings() == before
