"""Worker processes do not change what is read; if they die or hang, the error is one line and nothing blocks."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from microstep.components import augment as recipes
from microstep.components.dataset import Images
from microstep.components.dataset.loader_processes import loader_errors
from microstep.components.dataset.workers import ReadRequest, WorkerAugmentation, WorkerPool, worker_count
from microstep.errors import DataError, MicrostepError

PIXELS = np.random.default_rng(0).integers(0, 256, (48, 3, 8, 8), dtype=np.uint8)
PICTURES = Images(PIXELS, np.arange(48) % 2, ("a", "b"))
AUGMENTING = WorkerAugmentation(recipes.randaugment(0.125, 0.5, 2, 9), (0, 1), (90, 90, 90))


class Slow(Images):
    """Images on a disk that hangs."""

    def read(self, rows):
        time.sleep(60)
        return super().read(rows)


class Damaged(Images):
    """Images of which one can't be read."""

    def read(self, rows):
        if 9 in rows:
            raise DataError("train/b/9.jpg", "it can't be read", "remove it")
        return super().read(rows)


@contextmanager
def workers(count: int, pictures: Images = PICTURES, timeout: float = 60) -> Iterator[WorkerPool]:
    """Yield a worker pool whose processes end with the block."""
    made = WorkerPool({"train": pictures}, count, timeout)
    try:
        yield made
    finally:
        for pid in pids(made):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def pids(made: WorkerPool) -> list[int]:
    """Return the process ids of the workers."""
    iterator = getattr(made.loader, "_iterator", None)
    return [] if iterator is None else [process.pid for process in iterator._workers]


def wanted(augmenting: WorkerAugmentation | None = AUGMENTING, seed: int = 0, batch: int = 5) -> list[ReadRequest]:
    """Return an epoch's batches, in an order of its own."""
    rows = np.random.default_rng(seed).permutation(48).tolist()
    return [
        ReadRequest("train", rows[at : at + batch], range(at, min(48, at + batch)), augmenting)
        for at in range(0, 48, batch)
    ]


def taken(made: WorkerPool, asked: list[ReadRequest]) -> torch.Tensor:
    """Return everything, expected and then taken in order."""
    made.expect(asked)
    return torch.cat([made.take_batch(one) for one in asked])


def exact(asked: list[ReadRequest]) -> torch.Tensor:
    """Return the expected batches, read in this process."""
    with workers(0) as here:
        return torch.cat([here.take_batch(one) for one in asked])


def alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int], seconds: float) -> bool:
    """Wait until processes are gone."""
    end = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(alive, pids))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_batches_are_the_same_however_many_workers_read_them(count):
    """Bit for bit, augmented or not, in a second pass and a third of the same processes too."""
    with workers(count) as made:
        for seed, augmenting in ((0, None), (1, AUGMENTING), (0, None)):
            asked = wanted(augmenting, seed)
            assert torch.equal(taken(made, asked), exact(asked))
        assert len(pids(made)) == count


def test_pixels_are_the_rows_asked_for():
    """Without augmentation, a batch holds the bytes of its rows in order."""
    with workers(1) as made:
        asked = wanted(None)
        np.testing.assert_array_equal(taken(made, asked), PIXELS[[row for one in asked for row in one.rows]])


def test_processes_live_on_from_one_pass_to_the_next():
    """Starting them takes a second or more: it is done once, not once an epoch."""
    with workers(2) as made:
        taken(made, wanted())
        first = pids(made)
        taken(made, wanted(seed=1))
        assert pids(made) == first


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize("before", [0, 1, 4])
def test_a_pass_broken_off_leaves_nothing_to_the_next(count, before):
    """Batches read ahead for a pass that ended early are not used for the next pass."""
    with workers(count) as made:
        asked = wanted(seed=3)
        made.expect(asked)
        for one in asked[:before]:
            made.take_batch(one)
        again = wanted(seed=4)
        assert torch.equal(taken(made, again), exact(again))


@pytest.mark.parametrize("count", [0, 2])
def test_what_was_not_expected_is_read_all_the_same(count):
    """A second pass over a window, as sharpness-aware steps make, and an image for a report, amid a pass."""
    with workers(count) as made:
        asked = wanted()
        made.expect(asked)
        first = [made.take_batch(one) for one in asked[:3]]
        again = [made.take_batch(one) for one in wanted()[:3]]
        assert all(map(torch.equal, first, again))
        assert made.take_batch(ReadRequest("train", [7, 7])).tolist() == PIXELS[[7, 7]].tolist()
        rest = [made.take_batch(one) for one in asked[3:]]
        assert torch.equal(torch.cat([*first, *rest]), exact(asked))


def test_workers_leave_the_models_generators_alone():
    """Reading draws no number from torch's generator, however many processes are started."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with workers(2) as made:
        taken(made, wanted())
        assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("count", [0, 2])
def test_a_bad_file_is_named_when_its_batch_is_due(count):
    """A bad file raises its error at its own batch; the batches before and after it can be read."""
    with workers(count, Damaged(PIXELS, PICTURES.labels, ("a", "b"))) as made:
        asked = [ReadRequest("train", range(at, at + 4)) for at in range(0, 48, 4)]
        made.expect(asked)
        made.take_batch(asked[0])
        made.take_batch(asked[1])
        with pytest.raises(DataError, match=r"^train/b/9.jpg: it can't be read; remove it$"):
            made.take_batch(asked[2])
        assert made.take_batch(asked[3]).tolist() == PIXELS[12:16].tolist()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_workers_leave_signals_to_the_trainer(number):
    """A terminal's Ctrl-C and a scheduler's warning reach the whole group: workers go on until the trainer is done."""
    with workers(2) as made:
        asked = wanted()
        made.expect(asked)
        before = pids(made)
        for pid in before:
            os.kill(pid, number)  # in the first moment of their lives
        first = made.take_batch(asked[0])
        for pid in before:
            os.kill(pid, number)
        rest = [made.take_batch(one) for one in asked[1:]]
        assert torch.equal(torch.cat([first, *rest]), exact(asked))
        assert torch.equal(taken(made, asked), exact(asked))
        assert pids(made) == before


def test_a_killed_worker_is_a_line():
    """The kernel kills what takes too much memory: the error says so, and what to do, not where torch noticed it."""
    with workers(2) as made, pytest.raises(MicrostepError) as caught, loader_errors():
        asked = wanted(batch=1)
        made.expect(asked)
        made.take_batch(asked[0])
        os.kill(pids(made)[1], signal.SIGKILL)
        for one in asked[1:]:
            made.take_batch(one)
        time.sleep(5)  # the news comes by a signal
    line = str(caught.value)
    assert line.startswith("num_workers: a loader process died (")
    assert "\n" not in line
    assert "choose fewer num_workers" in line


def broken_connection() -> Iterator[torch.Tensor]:
    """What torch raises if a killed worker's connection breaks before the death is noticed, for microseconds."""
    raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
    yield


def test_a_worker_killed_while_it_sends_is_the_same_line():
    """A connection that breaks before torch notices the death is an error of a worker too."""
    with workers(2) as made:
        asked = wanted(batch=1)
        made.expect(asked)
        made.take_batch(asked[0])
        made.results = broken_connection()
        with pytest.raises(MicrostepError, match=r"^num_workers: a loader process died \(.*reset by peer\)"):
            made.take_batch(asked[1])


def test_another_error_is_not_explained_away():
    """Only errors of workers are rewritten; other errors are raised unchanged."""
    with pytest.raises(RuntimeError, match=r"^shapes differ$"), loader_errors():
        raise RuntimeError("shapes differ")


def test_zero_workers_are_zero_and_nobodys_wish_is_a_few():
    """A number is taken as it was typed; without one there is a process a core, but not dozens."""
    assert [worker_count(asked) for asked in (0, 1, 20)] == [0, 1, 20]
    assert 1 <= worker_count(None) <= min(8, os.cpu_count() or 1)


def script(body: str) -> list[str]:
    """Return a command that runs a program with the names of this module."""
    return [sys.executable, "-c", f"from tests.components.dataset.test_workers import *\n{textwrap.dedent(body)}"]


def test_a_worker_that_hangs_is_a_line_and_the_program_ends():
    """A disk that doesn't answer: after the timeout a line is raised, and exiting doesn't wait for the disk."""
    body = """
        made = WorkerPool({"train": Slow(PIXELS, PICTURES.labels, ("a", "b"))}, 1, timeout=1)
        try:
            with loader_errors():
                taken(made, wanted())
        except MicrostepError as error:
            print(error)
    """
    done = subprocess.run(script(body), capture_output=True, text=True, timeout=45)
    assert done.stdout.startswith("num_workers: a loader process gave nothing for 1 seconds; the disk may hang"), done
    assert done.stdout.count("\n") == 1
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("ending", ["pass", "raise KeyError(3)"])
def test_a_program_ends_at_once_with_its_workers_alive(ending):
    """In the middle of a pass, whatever ends it: processes that SIGTERM doesn't reach aren't waited for."""
    body = f"""
        made = WorkerPool({{"train": PICTURES}}, 2)
        made.expect(wanted(batch=1))
        made.take_batch(wanted(batch=1)[0])
        print(*pids(made), time.time(), flush=True)
        {ending}
    """
    done = subprocess.run(script(body), capture_output=True, text=True, timeout=45)
    *processes, since = done.stdout.split()
    assert time.time() - float(since) < 8
    assert done.returncode == (ending != "pass"), done.stderr
    assert gone([int(pid) for pid in processes], 1)


def test_workers_do_not_outlive_a_killed_program():
    """If the trainer is killed, its workers end by themselves within seconds."""
    body = """
        made = WorkerPool({"train": PICTURES}, 2)
        made.expect(wanted(batch=1))
        made.take_batch(wanted(batch=1)[0])
        print(*pids(made), flush=True)
        time.sleep(60)
    """
    with subprocess.Popen(script(body), stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        processes = [int(pid) for pid in program.stdout.readline().split()]
        assert all(map(alive, processes))
        program.kill()
    assert len(processes) == 2
    assert gone(processes, 20)


FAILING = """
import resource
from itertools import count
from multiprocessing import active_children

made = WorkerPool({"train": PICTURES}, 2)

def describe(asked):
    try:
        with loader_errors():
            taken(made, asked)
    except MicrostepError as error:
        open(os.devnull).close()  # a run can be recorded
        return str(error)
"""
UNSTARTED = "num_workers=2: a loader process can't be started or send its images ("


def test_a_worker_that_cant_be_started_is_a_line_and_the_program_ends():
    """For want of descriptors or processes. What was started is ended, and the next pass has its workers."""
    body = """
before = len(os.listdir("/proc/self/fd")) - 1
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
for limit in (before + 2, before + 8):
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    print(describe(wanted()).replace(str(limit), "LIMIT"), active_children())
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
fork, calls = os.fork, count()

def refuse():
    raise BlockingIOError(11, "Resource temporarily unavailable")

os.fork = lambda: fork() if next(calls) < 1 else refuse()
print(describe(wanted()), active_children())
os.fork = fork
print(torch.equal(taken(made, wanted()), exact(wanted())))
"""
    done = subprocess.run(script(FAILING + body), capture_output=True, text=True, timeout=45)
    remedy = "; choose fewer num_workers (0 needs none of it), or raise the limit of "
    files = f"{UNSTARTED}Too many open files){remedy}LIMIT open files (ulimit -n) []"
    processes = f"{UNSTARTED}Resource temporarily unavailable){remedy}processes (ulimit -u) []"
    assert done.stdout.splitlines() == [files, files, processes, "True"], done
    assert (done.returncode, done.stderr) == (0, "")


NO_MOUNT = subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode != 0


@pytest.mark.skipif(NO_MOUNT, reason="a process can't have a /dev/shm of its own here")
@pytest.mark.parametrize(
    ("options", "subject", "lack", "remedy"),
    [
        ("ro", "num_workers=2", "Read-only file system", "make /dev/shm writable"),
        ("size=8k", "num_workers=2", "No space left on device", "make room in /dev/shm"),
        ("size=400k", "num_workers", "No space left on device", "make room in /dev/shm"),
    ],
)
def test_too_little_shared_memory_is_a_line(options, subject, lack, remedy):
    """At the start and for the images. torch would lose the error of the latter, and wait for minutes."""
    body = f"{FAILING}print(describe([ReadRequest('train', [0] * 5000)] * 9))"
    mount = f'mount -t tmpfs -o {options} tmpfs /dev/shm && exec "$@"'
    command = ["unshare", "-rm", "sh", "-c", mount, "sh", *script(body)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=45)
    reason = f"{subject}: a loader process can't be started or send its images ({lack})"
    assert done.stdout == f"{reason}; choose fewer num_workers (0 needs none of it), or {remedy}\n", done
    assert done.returncode == 0
