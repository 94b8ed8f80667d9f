"""Starting a command line, and ending what it has started by a signal."""

from __future__ import annotations

import json
import signal
from importlib.util import find_spec
from pathlib import Path

import pytest

from microstep.cli.start import CommandLine, prepare_start, resume_remedy
from microstep.config import names
from microstep.config.compose import Composer
from microstep.config.overrides import quote_verbatim
from microstep.config.search_path import CONF
from microstep.errors import Stopped
from microstep.sweep.definition import Sweep


def record(directory: Path, **content: object) -> None:
    (directory / "run.json").write_text(json.dumps(content))


@pytest.mark.parametrize("before", [{}, {"status": "finished"}])
def test_a_signal_after_the_end_is_ignored(tmp_path: Path, before: dict) -> None:
    """Of a new run, and of one that is resumed for more epochs."""
    record(tmp_path, **before)
    with resume_remedy(tmp_path):
        record(tmp_path, status="finished", resumed=[{}])
        raise Stopped(signal.SIGTERM)


@pytest.mark.parametrize("before", [{}, {"status": "interrupted"}, {"status": "finished"}])
def test_a_signal_before_the_start_is_not(tmp_path: Path, before: dict) -> None:
    """While more epochs of a finished run are prepared, its record still says finished: the signal stops them."""
    record(tmp_path, **before)
    (tmp_path / "config.yaml").write_text("")
    with pytest.raises(Stopped) as caught, resume_remedy(tmp_path):
        raise Stopped(signal.SIGTERM)
    assert caught.value.remedy.endswith(f"resume={tmp_path}")


def test_a_run_without_a_config_is_not_offered_to_be_resumed(tmp_path: Path) -> None:
    """A signal may stop the program while it is still importing torch."""
    with pytest.raises(Stopped) as caught, resume_remedy(tmp_path):
        raise Stopped(signal.SIGTERM)
    assert caught.value.remedy == ""


@pytest.mark.parametrize(
    ("launcher", "plugin", "elsewhere"),
    [
        ("basic", "hydra", False),
        ("local", "hydra_plugins.hydra_joblib_launcher", False),
        ("slurm", "hydra_plugins.hydra_submitit_launcher", True),
        ("ray", "hydra_plugins.hydra_ray_launcher", True),
    ],
)
def test_a_sweep_knows_whether_its_jobs_run_on_this_machine(
    tmp_path: Path, launcher: str, plugin: str, elsewhere: bool
) -> None:
    """On a cluster their devices are not those of the machine that plans."""
    if find_spec(plugin) is None:
        pytest.skip(f"{plugin} is not installed")
    names.register_resolvers()
    words = [f"hydra/launcher={launcher}", "seed=0,1", quote_verbatim(f"hydra.sweep.dir={tmp_path / 's'}")]
    seen: list[Sweep] = []
    with Composer.open(CONF, "train") as composer:
        line = CommandLine(composer, words, "train", print, lambda study: lambda sweep, *_: seen.append(sweep))
        prepare_start(line, sweeping=True)()
    assert [sweep.elsewhere for sweep in seen] == [elsewhere]
