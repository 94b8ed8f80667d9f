"""Names of directories: stable, safe to type, and never two runs in one."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microstep.config.experiment import NEUTRAL_KEYS
from microstep.config.names import job_name, sweep_name
from microstep.errors import ConfigError, StorageError
from microstep.run.directory import unique_directory

SAFE = re.compile(r"[A-Za-z0-9._+-]{1,80}")
KEYS = ("batch_size", "dataset.root", "optimizer.lr")
VALUES = st.text("abAB01.-+/=,() '\"é数", max_size=60)


def test_a_job_is_named_by_what_was_typed() -> None:
    """A name reads `key-value_key-value`, and a job of which nothing was typed has one too."""
    assert job_name(["accum=2", "precision=amp"]) == "accum-2_precision-amp"
    assert job_name(["+optimizer.eps=1e-6"]) == "optimizer.eps-1e-6"
    assert job_name([]) == "defaults"


def test_fixed_keys_are_left_out_of_a_name_if_others_are_left() -> None:
    """Long fixed values don't push what is swept out of the name; a sweep over nothing is named by all."""
    words = ["model.name=" + "x" * 90, "optimizer.lr=0.1", "seed=3"]
    assert job_name(words, ["model.name"]) == "optimizer.lr-0.1_seed-3"
    assert job_name(words, ["model.name", "optimizer.lr", "seed"]) == job_name(words)


@given(st.lists(VALUES, min_size=3, max_size=3), st.permutations(range(3)))
@settings(derandomize=True)
def test_the_order_of_the_words_does_not_matter(values: list[str], order: list[int]) -> None:
    """A sweep typed in another order finds its directories again."""
    words = [f"{key}={value}" for key, value in zip(KEYS, values, strict=True)]
    assert job_name(words) == job_name([words[i] for i in order])


@pytest.mark.parametrize("key", sorted(NEUTRAL_KEYS))
def test_what_cannot_change_a_result_is_not_in_a_name(key: str) -> None:
    """Workers, bars and the like name no directory, with or without a plus."""
    assert job_name(["accum=2", f"{key}=5"]) == job_name([f"+{key}=5", "accum=2"]) == "accum-2"


@given(st.lists(VALUES, min_size=3, max_size=3))
@settings(derandomize=True)
def test_a_name_is_safe_to_type(values: list[str]) -> None:
    """Whatever was typed, the name has at most 80 characters, and none that a shell or a file system minds."""
    assert SAFE.fullmatch(job_name([f"{key}={value}" for key, value in zip(KEYS, values, strict=True)]))


@given(st.lists(VALUES, min_size=3, max_size=3), st.lists(VALUES, min_size=3, max_size=3))
@settings(derandomize=True)
def test_different_values_never_share_a_name(some: list[str], others: list[str]) -> None:
    """Replacing characters and cutting lose no distinction: two jobs of a sweep have two directories."""
    one, other = ([f"{k}={v}" for k, v in zip(KEYS, values, strict=True)] for values in (some, others))
    assert (job_name(one) == job_name(other)) == (some == others)


@pytest.mark.parametrize(
    ("value", "other"), [("a b", "a-b"), ("a/b", "a,b"), ("x" * 90, "x" * 91), ("x" * 200 + "1", "x" * 200 + "2")]
)
def test_what_was_replaced_or_cut_is_told_apart_by_a_hash(value: str, other: str) -> None:
    """A name that lost something ends in eight characters of a hash; one at the limit keeps its 80 characters."""
    assert re.search(r"-[0-9a-f]{8}$", job_name([f"dataset.root={value}"]))
    assert job_name([f"dataset.root={value}"]) != job_name([f"dataset.root={other}"])
    assert job_name(["model.name=" + "x" * 69]) == "model.name-" + "x" * 69
    assert len(job_name(["model.name=" + "x" * 70])) == 80


def test_a_value_that_looks_like_a_key_is_not_mistaken_for_one() -> None:
    """An underscore in a value does not make two jobs one."""
    assert job_name(["model.name=a_seed-2", "seed=3"]) != job_name(["model.name=a", "seed=2_seed-3"])


def test_a_name_is_the_same_in_every_process() -> None:
    """A rerun of a sweep finds its directories: the hash is not Python's own, which is salted."""
    script = "from microstep.config.names import job_name; print(job_name(['dataset.root=/a b']))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == job_name(["dataset.root=/a b"])


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "数", "x" * 81, "../up", "a\n"])
def test_a_sweep_that_cannot_name_a_directory_is_refused(name: str) -> None:
    """A sweep's name leads nowhere but into outputs/sweeps."""
    with pytest.raises(ConfigError, match=r"^sweep="):
        sweep_name(name)


def test_a_sweep_has_its_own_name_or_the_time() -> None:
    """A name that will do is taken as it is."""
    assert sweep_name("s-1_b.c+d") == "s-1_b.c+d"
    assert SAFE.fullmatch(sweep_name(None))


def test_threads_that_want_one_directory_get_one_each(tmp_path: Path) -> None:
    """Eight at the same instant: eight directories, the first under the name itself, all made."""
    barrier = Barrier(8)

    def claim(_: int) -> Path:
        barrier.wait()
        return unique_directory(tmp_path / "day" / "run")

    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(claim, range(8)))
    assert {path.name for path in claimed} == {"run", *(f"run-{n}" for n in range(2, 9))}
    assert set((tmp_path / "day").iterdir()) == set(claimed)


def test_programs_started_together_get_a_directory_each(tmp_path: Path) -> None:
    """Four starts in the same second are four runs."""
    script = "from microstep.run import directory as d; print(d.unique_directory(d.Path('o/d/run')))"
    starts = [
        subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    claimed = {start.communicate(timeout=60)[0].strip() for start in starts}
    assert claimed == {"o/d/run", "o/d/run-2", "o/d/run-3", "o/d/run-4"}


def test_a_directory_that_is_there_is_never_taken(tmp_path: Path) -> None:
    """Neither a run's directory nor a file of that name is written into."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run-2").write_text("mine")
    assert unique_directory(tmp_path / "run") == tmp_path / "run-3"
    assert (tmp_path / "run-2").read_text() == "mine"


def test_a_directory_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    """A file in the way is named, with exit code 4."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/run: Not a directory; ") as caught:
        unique_directory(tmp_path / "file" / "run")
    assert caught.value.exit_code == 4


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Break off what would go on for ever."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it never ends"))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_link_to_a_disk_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    """If outputs/ points at something unmounted, the start fails at once and says so."""
    (tmp_path / "outputs").symlink_to(tmp_path / "unmounted")
    with within(2), pytest.raises(StorageError):
        unique_directory(tmp_path / "outputs" / "run")
