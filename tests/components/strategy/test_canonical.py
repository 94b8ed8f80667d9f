"""reduction=canonical: the same bits for every cut of a window and every number of processes."""

from collections.abc import Sequence
from hashlib import sha256
from itertools import combinations_with_replacement, pairwise, product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from microstep.components.strategy.data_parallel import DataParallel
from microstep.components.strategy.gradient_sums import TreeSum
from microstep.config.compose import compose
from microstep.errors import ConfigError
from microstep.training.build import build_trainer
from microstep.training.resume import resume
from microstep.types.data import MicroBatchResult
from microstep.types.events import Results
from tests.conftest import fit
from tests.faults.interruptions import stop_at

CANONICAL = (
    *("threads=1", "progress=false", "reduction=canonical", "atom=8", "effective_batch_size=60", "epochs=1"),
    *("dataset.val_samples=20", "augment=crop_flip", "model.norm=batch", "step=sam"),
)


def digest(run: Path) -> str:
    """Return a SHA-256 of the names and bytes of a run's final weights."""
    weights = sorted(load_file(run / "model.safetensors").items())
    return sha256(b"".join(name.encode() + value.numpy().tobytes() for name, value in weights)).hexdigest()


def outcome(results: Results) -> tuple[str, float]:
    return digest(results.run_dir), results.splits["test"].metrics["loss"]


def cut(accum: int, processes: int, run_on: int) -> list[str]:
    ddp = ["strategy=ddp", f"strategy.processes={processes}", f"strategy.run_on={run_on}"]
    return [f"accum={accum}", *(ddp if processes > 1 else [])]


def add_up(values: Sequence[Tensor], cuts: Sequence[int]) -> Tensor:
    """Add up values on ranks that hold those between two cuts, then their nodes."""
    whole = TreeSum([])
    for first, last in pairwise((0, *cuts, len(values))):
        own = TreeSum([])
        for index in range(first, last):
            own.push(0, index, values[index].clone())
        for node in own.nodes:
            whole.push(*node)
    return whole.total()


@pytest.mark.parametrize("count", range(1, 14))
def test_every_distribution_over_ranks_gives_the_same_bits(count: int) -> None:
    """The sum of a window does not depend on which consecutive micro-batches a rank has, idle ranks included."""
    values = list(torch.randn(count, 50, generator=torch.Generator().manual_seed(count)))
    expected = add_up(values, ())
    assert torch.allclose(expected, torch.stack(values).sum(0), atol=1e-5)
    for cuts in combinations_with_replacement(range(count + 1), 3):
        assert torch.equal(add_up(values, cuts), expected), cuts


def test_few_nodes_are_held() -> None:
    """Memory grows with the logarithm of the number of micro-batches."""
    tree = TreeSum([])
    for index in range(1000):
        tree.push(0, index, torch.ones(1))
        assert len(tree.nodes) <= 10
    assert tree.total().item() == 1000


def test_a_parameter_that_no_micro_batch_uses_keeps_no_gradient() -> None:
    """An optimizer leaves it alone, as with reduction=sum; one that some micro-batch uses gets its sum."""
    model = nn.ModuleList(nn.Linear(2, 2, bias=False) for _ in range(3))

    def compute(number: int) -> MicroBatchResult:
        loss = model[number](torch.ones(1, 2)).sum()
        loss.backward()
        return MicroBatchResult(loss.detach(), loss, loss, loss, number=number)

    strategy = DataParallel()
    strategy.sum_type = TreeSum
    strategy.reduce(model, map(compute, range(2)), None)
    assert [layer.weight.grad is None for layer in model] == [False, False, True]
    assert model[1].weight.grad.equal(torch.ones(2, 2))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[str, float]:
    """Return the outcome of a run in one process, uncut."""
    return outcome(fit(CANONICAL, tmp_path_factory.mktemp("whole")))


@pytest.mark.parametrize(("accum", "processes"), [(4, 1), (1, 2)])
def test_the_cut_changes_no_bit(whole: tuple[str, float], tmp_path: Path, accum: int, processes: int) -> None:
    """Windows of 60 samples and a last one of 57 have ragged atoms of 8; BatchNorm and SAM's two passes included."""
    assert outcome(fit([*CANONICAL, *cut(accum, processes, 1)], tmp_path)) == whole


def test_the_cut_changes_bits_without_it(tmp_path: Path) -> None:
    """With reduction=sum the rounding of two cuts differs, so the tests above can fail."""
    words = [word for word in CANONICAL if not word.startswith(("reduction", "atom", "model.norm"))]
    for accum in (1, 4):
        fit([*words, f"accum={accum}"], tmp_path / str(accum))
    assert digest(tmp_path / "1") != digest(tmp_path / "4")


@pytest.mark.parametrize("run_on", [1, pytest.param(4, marks=pytest.mark.long)])
def test_what_is_killed_on_two_processes_and_resumed_on_others_is_the_same_run(
    whole: tuple[str, float], tmp_path: Path, capsys: pytest.CaptureFixture[str], run_on: int
) -> None:
    """A window of two real processes has the same bits, and the resume says so."""
    run = tmp_path / "run"
    stop_at(build_trainer(compose([*CANONICAL, *cut(1, 2, 2), "checkpoint.every_steps=5"]), run), 12, lost=True)
    results = resume(run, [f"strategy.run_on={run_on}"]).fit()
    assert "resumed after epoch 1, window 10: it is the same run, bit for bit" in capsys.readouterr().out
    assert outcome(results) == whole


@pytest.mark.long
@pytest.mark.parametrize("precision", ["fp32", "amp"])
@pytest.mark.parametrize("model", ["small_cnn", "resnet18"])
def test_nine_cuts_have_one_digest(tmp_path: Path, precision: str, model: str) -> None:
    """Any accum with any number of processes gives one SHA-256 of the final weights."""
    words = [*CANONICAL, f"precision={precision}", f"model={model}", "optimizer=adamw", "optimizer.lr=0.003"]
    words += ["effective_batch_size=80", "atom=12"]  # six atoms of 12 and one of 8
    words += ["dataset=synthetic", "dataset.samples=232", "dataset.test_samples=20"] if model == "resnet18" else []
    found = {}
    for accum, processes in product((1, 2, 4), repeat=2):
        fit([*words, *cut(accum, processes, processes)], run := tmp_path / f"{accum}-{processes}")
        found[accum, processes] = digest(run)
    assert len(set(found.values())) == 1, found


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["reduction=tree"], "reduction=tree: no such option; the options are sum, canonical"),
        (["reduction=canonical", "atom=0"], "atom=0: out of range; it must be at least 1"),
        (["atom=16"], "atom=16: only reduction=canonical has atoms; add it, or leave out atom="),
        (
            ["reduction=canonical", "deterministic=false"],
            "deterministic=false: reduction=canonical promises",
        ),
        (["reduction=canonical", "check=drift", "accum=2"], "check=drift: it compares cuts, and reduction=canonical"),
        (
            ["reduction=canonical", "effective_batch_size=64", "accum=3"],
            "effective_batch_size=64: it is not a",
        ),
        (["reduction=canonical", "model.norm=ghost", "atom=24"], "it doesn't divide; choose a divisor, or atom=32"),
        (
            ["reduction=canonical", "strategy._target_=fractions.Fraction"],
            "reduction=canonical: your own strategy adds up gradients",
        ),
    ],
)
def test_what_canonical_excludes_is_refused(words: list[str], says: str) -> None:
    """The message names the key and a way out."""
    with pytest.raises(ConfigError) as error:
        compose(words)
    assert says in str(error.value)


def test_an_atom_of_one_sample_is_refused(tmp_path: Path) -> None:
    """BatchNorm can't train on it. The atom that is proposed leaves none in any window."""
    words = [*CANONICAL, "model=resnet18", "effective_batch_size=65"]
    with pytest.raises(ConfigError, match=r"atom=8: .* choose atom=10,"):
        build_trainer(compose(words), tmp_path)
