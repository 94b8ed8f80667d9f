"""A run of a serial sweep leaves no descriptor, no memory and no process to the runs after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.zygote import Zygote
from tests.sweep.test_sweeps import CONF, said

WORDS = ("threads=1", "epochs=1", "batch_size=30", "model=counted", "log_every_steps=1000", "sweep=s")
MANY = pytest.param(200, marks=pytest.mark.long)


@pytest.mark.parametrize("runs", [6, MANY])
def test_a_sweep_ends_with_what_its_third_run_had(zygote: Zygote, photos: Path, tmp_path: Path, runs: int) -> None:
    """Each run starts two loader processes; each third run fails after it has built its model."""
    data = ("dataset=image_folder", f"dataset.root='{photos}'", "dataset.size=8")
    streamed = (*data, "dataset.resident=false", "num_workers=2")
    numbers = ",".join(map(str, range(runs)))
    words = ("--config-dir", CONF, "-m", *WORDS, *streamed, f"model.number={numbers}")
    assert zygote.run("train.py", *words, cwd=tmp_path, COUNTS=str(tmp_path / "counts")) == 1
    lines = said(tmp_path)
    assert f"{(runs + 2) // 3} of {runs} runs are not finished" in lines[-1]
    assert not any("Traceback" in line for line in lines)
    counts = [tuple(map(int, line.split())) for line in (tmp_path / "counts").read_text().splitlines()]
    descriptors, kilobytes, models = zip(*counts, strict=True)
    assert len(counts) == runs
    assert set(descriptors[2:]) == {descriptors[2]}
    assert set(models) == {0}
    assert max(kilobytes) < 1.1 * kilobytes[2]
