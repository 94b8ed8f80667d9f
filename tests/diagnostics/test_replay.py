"""replay= repeats one optimizer step of a run, to the bit, and names what made it not finite."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from hashlib import sha256
from math import hypot
from pathlib import Path
from time import perf_counter

import pytest
import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor, nn

from microstep.components.dataset.splits import ResidentSplit
from microstep.components.model import SmallCNN
from microstep.config.allowlist import ALLOW_ALL
from microstep.config.compose import Composer, compose
from microstep.config.search_path import CONF
from microstep.diagnostics.replay.check import replay_step, restore_copy, run_replay
from microstep.errors import Diverged
from microstep.run.checkpoints.checkpoints import Checkpoints
from microstep.run.resume import ResumePlan, plan_resume
from microstep.run.saved_run import SavedRun
from microstep.training.build import build_trainer
from microstep.types.data import Batch
from microstep.types.events import WindowReport
from tests.faults.interruptions import stop_at
from tests.faults.runs import same, state_of
from tests.faults.zygote import Zygote

WORDS = ("model=mlp", "threads=1", "progress=false")
AT, ROW = 40, 3  #: the training call from which a model goes wrong, and the sample of the micro-batch
Operation = Callable[[Tensor], Tensor]
OPERATIONS: dict[str, Operation] = {
    "log": lambda x: x.abs().log(),
    "norm": lambda x: x / x.norm(dim=1, keepdim=True),
    "overflow": lambda x: torch.where(x == 0, 1e6, x).half(),
    "sqrt": lambda x: x.abs().sqrt(),
}


class Fault(nn.Module):
    """Passes its inputs on, until in training it sets a sample to 0 and then applies an operation."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += self.training
        if not self.training or self.calls < AT:
            return inputs
        kept = torch.ones(len(inputs), 1)
        kept[ROW] = 0
        return OPERATIONS[self.kind](inputs * kept)


def faulty(input_shape: Sequence[int], num_classes: int, kind: str) -> nn.Module:
    return nn.Sequential(SmallCNN(input_shape, num_classes, 8), Fault(kind), nn.Linear(num_classes, num_classes))


def composed(*words: str, **model: str) -> DictConfig:
    length = () if any(word.startswith(("steps=", "epochs=")) for word in words) else ("epochs=2",)
    config = compose([*WORDS, *length, *words])
    if model:
        with open_dict(config):
            config.model = OmegaConf.create(model)
    return config


def plan(run: Path, *words: str) -> ResumePlan:
    with Composer.open(CONF, "train") as composer:
        return plan_resume(run, composer, [*words], ALLOW_ALL, "replay")


def replayed(run: Path, window: int | None = None) -> tuple[int, dict]:
    """Return the exit code and the numbers of a replay."""
    (output := run.parent / "replay").mkdir()
    code = run_replay(plan(run), window, output)
    return code, json.loads((output / "replay.json").read_text())


def diverged(run: Path, config: DictConfig) -> list[int]:
    """Let a run diverge, and return the samples of the window at which it did."""
    trainer = build_trainer(config, run)
    with pytest.raises(Diverged, match=rf"; python -m microstep train replay={run} shows where; "):
        trainer.fit()
    epoch, window = divmod(trainer.progress.windows - 1, 23)
    (loaded,) = [w for w in trainer.loaders.train(epoch + 1) if w.number == window]
    return torch.cat([batch.indices for batch in loaded.batches]).tolist()


EXACT = [
    (),
    ("dataset.resident=false", "num_workers=2", "augment=cutout", "precision=amp", "model.dropout=0.2", "average=ema"),
    ("model=small_cnn", "augment=crop_flip", "accum=2", "batch_size=32", "average=ema"),
    ("step=sam", "accum=3", "batch_size=20", "model.dropout=0.5", "scheduler=plateau", "optimizer=adamw"),
    ("step=lookahead", "average=swa", "gradient=agc", "precision=fp16", "precision.init_scale=1e9"),
    ("steps=50", "validate_every_steps=20", "augment=mixup", "reduction=canonical", "atom=16"),
]


@pytest.mark.parametrize(
    "words",
    [pytest.param(words, marks=pytest.mark.long) if n in (0, 2, 4, 5) else words for n, words in enumerate(EXACT)],
    ids=lambda words: " ".join(words) or "default",
)
def test_the_weights_after_a_replayed_step_are_those_of_the_run_bit_for_bit(tmp_path: Path, words) -> None:
    """Replay the last window from an earlier checkpoint, and from the initial weights: no bit of any state differs."""
    run = tmp_path / "run"
    build_trainer(composed(*words), run).fit()
    saved, last = SavedRun.read(run, "replay"), state_of(run, "last")
    for number, entry in enumerate([Checkpoints(run / "checkpoints").entry("previous"), None]):
        (copy := tmp_path / str(number)).mkdir()
        trainer = restore_copy(saved, plan(run), copy, entry)
        replay_step(trainer, last["progress"]["windows"])
        state = trainer.state_dict()
        parts = {"model", "training", "optimizer", "precision", "step"} & last.keys()  # others follow the validation
        assert {name for name in parts if not same(dict(state[name]), dict(last[name]))} == set()


def digests(directory: Path) -> dict[str, tuple[str, int]]:
    files = [file for file in directory.rglob("*") if file.is_file()]
    return {str(f): (sha256(f.read_bytes()).hexdigest(), f.stat().st_mtime_ns) for f in files}


FAULTS = [
    ("log", (), "2, step 17", "log in 1 (Fault) returns infinity in float32 for inputs of 0 to "),
    ("norm", ("accum=2", "batch_size=32"), "1, step 20", "div in 1 (Fault) returns NaN for inputs of "),
    (
        "overflow",
        ("precision=fp16", "precision.max_skipped=1"),
        "2, step 18",
        "to_copy in 1 (Fault) returns infinity",
    ),
    ("sqrt", (), "2, step 17", "div, in the gradient of Sqrt, in 1 (Fault) returns "),
]


@pytest.mark.parametrize(("kind", "words", "place", "told"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_an_operation_is_named_with_its_layer_and_the_sample(tmp_path: Path, kind: str, words, place, told) -> None:
    """The window at which a run diverged is replayed within 10 s of an earlier checkpoint; the run stays as it was."""
    run, micro_batch = tmp_path / "run", 32 if "accum=2" in words else 0  # there it is the second of the window
    indices = diverged(run, composed(*words, _target_=f"{__name__}.faulty", kind=kind))
    before, start = digests(run), perf_counter()
    code, numbers = replayed(run)
    assert perf_counter() - start < 10
    assert (code, numbers["fault"]) == (1, "operation")
    assert numbers["step"].endswith(f": epoch {place}")
    assert numbers["sentence"].startswith(f"Not finite: {told}")
    assert f"; sample #{indices[micro_batch + ROW]} (" in numbers["sentence"]
    assert digests(run) == before


@pytest.mark.parametrize("value", [torch.nan, 1e30])
def test_a_corrupt_image_is_named_as_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """An input that is not finite, or far out of range, is named before any layer, with its sample."""
    fetch, corrupt = ResidentSplit.fetch, set[int]()

    def corrupted(self: ResidentSplit, rows: Tensor, positions: Tensor) -> Batch:
        batch = fetch(self, rows, positions)
        batch.inputs[rows == 100, 0, 2, 5] = value
        corrupt.update(batch.indices[rows == 100].tolist())
        return batch

    monkeypatch.setattr(ResidentSplit, "fetch", corrupted)
    indices = diverged(tmp_path / "run", composed())
    code, numbers = replayed(tmp_path / "run")
    assert (code, numbers["fault"]) == (1, "data")
    (index,) = corrupt.intersection(indices)
    assert numbers["sentence"].startswith(f"The data: an input reaches {value:.4g} before any layer; sample #{index} (")
    assert (tmp_path / "replay" / "images.png").exists()


def test_a_learning_rate_is_named(tmp_path: Path) -> None:
    """The cause of a divergence is the learning rate if an update was larger than the weights; so is a finite step."""
    diverged(tmp_path / "run", composed("optimizer.lr=1e12", "scheduler=constant"))
    code, numbers = replayed(tmp_path / "run")
    assert (code, numbers["fault"]) == (1, "learning rate")
    found = re.match(
        r"The learning rate: the update\b.* is (\S+) times as large as the weights; lower optimizer.lr",
        numbers["sentence"],
    )
    assert float(found[1]) > 100
    (tmp_path / "replay").rename(tmp_path / "first")
    code, numbers = replayed(tmp_path / "run", 1)
    assert (code, numbers["fault"], numbers["step"]) == (1, "learning rate", "window 1: epoch 1, step 1")
    assert numbers["sentence"].endswith(" times as large as the weights; lower optimizer.lr, or set max_grad_norm")


def test_an_overflow_of_the_loss_scale_alone_is_no_fault(tmp_path: Path) -> None:
    """A skipped step whose gradient is finite without the scale is told from an overflow of the model."""
    trainer = build_trainer(composed("precision=fp16", "precision.init_scale=1e9", "epochs=1"), tmp_path / "run")
    trainer.fit()
    assert trainer.progress.skipped_steps
    code, numbers = replayed(tmp_path / "run", 1)
    assert (code, numbers["fault"], numbers["skipped"]) == (0, "loss scale", "yes")
    assert numbers["sentence"].startswith(
        "Only the loss scale of 1e+09 overflows, which skips the step (to_copy, in the "
    )


def test_samples_and_layers_are_those_of_the_step(tmp_path: Path) -> None:
    """The losses of the samples have the mean of the window's loss, and the layers' gradients its norm."""
    words = ("accum=3", "batch_size=20", "task.class_weights=balanced", "augment=mixup", "model.dropout=0.3")
    trainer = build_trainer(composed(*words, "log_every_steps=1", "epochs=1"), tmp_path / "run")
    logged: list[WindowReport] = []
    trainer.loggers.loggers[0].window = logged.append
    trainer.fit()
    code, numbers = replayed(tmp_path / "run", 7)
    assert (code, numbers["fault"]) == (0, "")
    assert numbers["loss"] == logged[6].loss
    assert hypot(*(gradient for gradient, _, _ in numbers["layers"].values())) == pytest.approx(logged[6].grad_norm)
    losses = [loss for _, (loss, _) in numbers["samples"]]
    assert len(losses) == 60
    assert losses == sorted(losses, reverse=True)
    (window,) = [w for w in trainer.loaders.train(1) if w.number == 6]
    assert sum(losses) / window.weight == pytest.approx(numbers["loss"])


def test_a_run_that_was_stopped_is_replayed_beyond_its_last_checkpoint(tmp_path: Path, capsys) -> None:
    """The cost is told first; without window= the last known step is taken, and a later one may be named."""
    stop_at(build_trainer(composed("epochs=3"), tmp_path / "run"), 30)
    code, numbers = replayed(tmp_path / "run")
    assert (code, numbers["step"]) == (0, "window 30: epoch 2, step 7")
    first = capsys.readouterr().out.partition("window 30: ")[2]
    assert re.match(r"7 windows after the checkpoint of epoch 1, about \d\.\d s\n", first)
    (tmp_path / "replay").rename(tmp_path / "first")
    assert replayed(tmp_path / "run", 47)[1]["step"] == "window 47: epoch 3, step 1"
    assert "window 47: 17 windows after the checkpoint of epoch 2, window 7" in capsys.readouterr().out


def test_other_circumstances_are_named(tmp_path: Path, caplog) -> None:
    """What a resume warns of, such as another number of threads, a replay warns of, too."""
    build_trainer(composed(), tmp_path / "run").fit()
    output = tmp_path / "replay"
    output.mkdir()
    assert run_replay(plan(tmp_path / "run", "threads=2"), 30, output) == 0
    assert "the run continues, but is not the same bit for bit: threads 2 (was 1)" in caplog.text


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("replay=nowhere",), "replay=nowhere: config.yaml is not there; give the directory that a run left behind"),
        (("replay=run", "window=0"), "window=0: out of range; it must be at least 1"),
        (("replay=run", "window=a"), "window=a: it is text; give null or a whole number"),
        (("window=3",), "window=3: it is a step of a run; add replay=RUN_DIR"),
        (("replay=run", "epochs=9"), "epochs=9: replay= repeats a step of a run as it was; leave epochs= out"),
        (("replay=run", "resume=run"), "resume=run: replay= repeats a step of a run as it was; leave resume= out"),
        (("replay=run", "check=lr"), "check=lr: it examines a new experiment, not a run; leave replay= out"),
        (("replay=run", "optimizer.lr=1"), "replay=run: this is another experiment: optimizer.lr=1 (it has 0.03); "),
        (("-m", "replay=run"), "replay=run: it is one step of one run, and -m starts several; leave -m out"),
        (("replay=run", "window=24"), "window=24: the run has 23 steps; give one of them"),
    ],
)
def test_what_cannot_be_replayed_is_refused_in_one_line(zygote: Zygote, run: Path, words, line: str) -> None:
    """Exit code 2, and nothing is written."""
    done = zygote.call("train.py", *words, cwd=run.parent)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {line}")
    assert [path.name for path in run.parent.iterdir()] == ["run"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one epoch."""
    directory = tmp_path_factory.mktemp("finished") / "run"
    build_trainer(composed("epochs=1"), directory).fit()
    return directory


def test_the_program_writes_a_directory_of_its_own(zygote: Zygote, run: Path, tmp_path: Path) -> None:
    """From the command line: --json prints the result, and the run directory is only read."""
    before = digests(run)
    done = zygote.call("train.py", f"replay={run}", "window=5", "num_workers=0", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    printed = json.loads(done.stdout)
    (output,) = (tmp_path / "outputs" / "checks").iterdir()
    assert output.name.endswith("_replay_run")
    assert printed["directory"] == f"outputs/checks/{output.name}"
    assert printed["sentence"].startswith("The step is sound: loss ")
    assert {"replay.txt", "replay.json", "images.png"} <= {file.name for file in output.iterdir()}
    assert not list(output.glob(".copy-*"))
    assert digests(run) == before
