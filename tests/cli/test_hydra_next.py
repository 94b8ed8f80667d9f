"""Checks against Hydra's next release: run by `make test-hydra-next`, which installs its pre-release."""

from __future__ import annotations

import re
from pathlib import Path

import hydra
import pytest

from tests.conftest import call

pytestmark = pytest.mark.skipif(hydra.__version__ < "1.4", reason="make test-hydra-next installs the next release")
QUICK = ("model=mlp", "epochs=1", "threads=1", "progress=false")
WARNING = re.compile(r"^\S*?(src/\S+?:\d+|site-packages/\S+?:\d+|\S+\.py:\d+): (\w*Warning: .*)$", re.MULTILINE)


@pytest.mark.parametrize(
    "words",
    [
        ("hydra.run.dir=run",),
        ("-m", "seed=0,1", "sweep=s"),
        ("-m", "seed=0,1", "sweep=s", "hydra/launcher=local"),
        ("--cfg", "job"),
        ("--info", "searchpath"),
    ],
    ids=" ".join,
)
def test_a_command_works(tmp_path: Path, words: tuple[str, ...]) -> None:
    """It ends with exit code 0; warnings are for the test below."""
    done = call("train.py", *QUICK, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_config_error_is_exit_2(tmp_path: Path) -> None:
    """The last line is ours."""
    done = call("train.py", "acum=2", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: acum=2: no such key; ")


def test_nothing_is_deprecated(tmp_path: Path) -> None:
    """No line of ours uses what the release after it will refuse; a failure lists each."""
    done = call("train.py", *QUICK, "hydra.run.dir=run", cwd=tmp_path, PYTHONWARNINGS="always")
    found = {f"{place}: {text}" for place, text in WARNING.findall(done.stderr) if "site-packages" not in place}
    if found:
        pytest.fail("\n".join(["deprecated:", *sorted(found)]), pytrace=False)
