"""--json prints one JSON object to stdout, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.faults.zygote import Zygote

QUICK = ("model=mlp", "epochs=1", "progress=false")


def result_of(zygote: Zygote, program: str, *words: str, cwd: Path) -> dict[str, Any]:
    """Return the object that a program prints, which is all of its stdout."""
    done = zygote.call(program, *words, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    content = json.loads(line, parse_constant=pytest.fail)
    assert isinstance(content, dict)
    return content


def test_each_program_prints_its_figures(zygote: Zygote, tmp_path: Path) -> None:
    """Metrics are those of run.json, with every digit; a comparison is that of its file; paths are relative."""
    for seed in (0, 1):
        assert zygote.call("train.py", *QUICK, f"seed={seed}", f"hydra.run.dir={seed}", cwd=tmp_path).returncode == 0
    record = json.loads((tmp_path / "0" / "run.json").read_text())
    evaluated = result_of(zygote, "evaluate.py", f"run={tmp_path / '0'}", "split=val", cwd=tmp_path)
    assert evaluated["metrics"] == record["metrics"]["val"]
    assert evaluated["directory"] == "0/reports/val"
    assert (tmp_path / evaluated["directory"] / "predictions.csv").exists()
    (compared,) = result_of(zygote, "evaluate.py", "run=1", "baseline=0", cwd=tmp_path)["comparisons"]
    file = tmp_path / compared.pop("directory") / "comparison.json"
    assert json.loads(file.read_text()) == compared
    measured = result_of(zygote, "compute_stats.py", "ratio=0.1", cwd=tmp_path)
    assert measured["splits"]["train ratio=0.1 seed=0"]["count"] == 162
    words = ("check=accumulation", "accum=2", "batch_size=8", "model=mlp")
    checked = result_of(zygote, "train.py", *words, cwd=tmp_path)
    assert checked["passed"] is True
    assert checked["directory"].startswith("outputs/checks/")
    written = json.loads((tmp_path / checked["directory"] / "accumulation.json").read_text())
    assert written["sentence"] == checked["sentence"]
    described = (ROOT / "docs/run-directory.md").read_text().partition("## JSON on stdout")[2]
    assert [
        key for found in (evaluated, compared, measured, checked) for key in found if f"`{key}`" not in described
    ] == []


def test_an_error_is_the_line_that_it_always_is(zygote: Zygote, tmp_path: Path) -> None:
    """Stdout is empty then; a run, whose results are in run.json, has no JSON."""
    for words, code in ((["compute_stats.py", "ratio=2"], 2), (["train.py"], 2), (["evaluate.py", "run=none"], 2)):
        done = zygote.call(words[0], *words[1:], "--json", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (code, "")
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
