"""Tests of tasks outside src, each with one file and one yaml."""

from pathlib import Path

import pytest

from tests.tasks.weights import last_weights, relative

CONF = Path(__file__).parent / "conf"
REGRESSION = ("task=regression", "dataset=diabetes", "model=perceptron", "optimizer.lr=0.01")
SEGMENTATION = ("task=segmentation", "dataset=inked_digits", "model=pixelwise", "optimizer.lr=0.1")


@pytest.mark.parametrize(
    ("words", "learnt"),
    [(REGRESSION, "mean absolute error"), (SEGMENTATION, "pixel accuracy")],
    ids=["tabular", "pixels"],
)
def test_a_task_of_ones_own_trains_exactly_under_accumulation(zygote, words, learnt, tmp_path) -> None:
    """Two splits of one effective batch give the same weights in train.py. The task's report is printed."""
    common = ("--config-dir", str(CONF), *words, "precision=fp64", "epochs=3", "max_grad_norm=1")
    cuts = {"whole": ("batch_size=40",), "cut": ("batch_size=8", "accum=5")}
    for name, cut in cuts.items():
        done = zygote.call("train.py", *common, *cut, f"hydra.run.dir={name}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert learnt in done.stdout
    whole, cut = (last_weights(tmp_path / name) for name in cuts)
    assert relative(cut, whole) < 1e-10


def test_a_task_of_ones_own_can_be_evaluated_again(zygote, tmp_path) -> None:
    """evaluate.py builds the task if `trust` or conf/ names its parts, and refuses it otherwise."""
    words = ("--config-dir", str(CONF), *SEGMENTATION, "epochs=1", "hydra.run.dir=run")
    assert zygote.call("train.py", *words, cwd=tmp_path).returncode == 0
    refused = zygote.call("evaluate.py", "run=run", cwd=tmp_path)
    assert refused.returncode == 2
    assert "trust" in refused.stderr
    names = ["Segmentation", "inked_digits", "pixelwise"]
    trust = f"trust=[{','.join(f'tests.tasks.segmentation.{name}' for name in names)}]"
    assert "pixel accuracy" in zygote.call("evaluate.py", "run=run", trust, cwd=tmp_path).stdout
    assert "pixel accuracy" in zygote.call("evaluate.py", "--config-dir", str(CONF), "run=run", cwd=tmp_path).stdout
