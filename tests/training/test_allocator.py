"""`allocator=keep` lets freed memory stay in the process, and changes nothing else."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import fit
from tests.faults.runs import differences

ON_GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
BLOCK = 2**26  #: bytes; glibc maps and unmaps a block over 32 MiB by itself
PAGES = BLOCK // os.sysconf("SC_PAGE_SIZE")
SECOND_BLOCK = f"""
import sys
from resource import RUSAGE_SELF, getrusage
from microstep.training.allocator import configure_allocator
for mode in sys.argv[1:]:
    configure_allocator(mode)
    b"x" * {BLOCK}
before = getrusage(RUSAGE_SELF).ru_minflt
b"x" * {BLOCK}
print(getrusage(RUSAGE_SELF).ru_minflt - before)
"""


def count_faults(*modes: str, **environment: str) -> int:
    """Return the page faults of a second large block, in a process that sets the allocator to these modes in turn."""
    unset = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "LD_"))}
    command = [sys.executable, "-c", SECOND_BLOCK, *modes]
    done = subprocess.run(command, env=unset | environment, capture_output=True, text=True, timeout=60)
    return int(done.stdout)


@ON_GLIBC
def test_a_large_block_reuses_the_memory_of_the_one_before() -> None:
    """With keep the kernel is not asked again; with default it is, also after keep."""
    assert count_faults("keep") < PAGES / 10
    assert count_faults("default", "keep", "keep") < PAGES / 10
    assert count_faults("default") >= PAGES
    assert count_faults("keep", "default") >= PAGES


@ON_GLIBC
@pytest.mark.parametrize("variable", ["MALLOC_TOP_PAD_=0", "GLIBC_TUNABLES=glibc.malloc.top_pad=0"])
def test_what_the_user_has_set_is_left(variable: str) -> None:
    """glibc's own variables come first."""
    name, _, value = variable.partition("=")
    assert count_faults("keep", **{name: value}) >= PAGES


PRELOADED = "void *__libc_malloc(unsigned long); void *malloc(unsigned long size) { return __libc_malloc(size); }"


@ON_GLIBC
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_preloaded_allocator_is_left(tmp_path: Path) -> None:
    """Nothing is set if malloc is not glibc's."""
    (tmp_path / "other.c").write_text(PRELOADED)
    subprocess.run(["cc", "-shared", "-fPIC", "other.c", "-o", "other.so"], cwd=tmp_path, check=True)
    assert count_faults("keep", LD_PRELOAD=str(tmp_path / "other.so")) >= PAGES


def test_no_bit_depends_on_it(tmp_path: Path) -> None:
    """Weights, metrics and predictions are the same, and peak memory is, but for imports and gaps between blocks."""
    words = ["epochs=1", "augment=crop_flip"]
    peaks = [fit([*words, f"allocator={mode}"], tmp_path / mode).peak_memory_bytes for mode in ("keep", "default")]
    assert abs(peaks[0] - peaks[1]) < 80 * 2**20
    assert differences(tmp_path / "keep", tmp_path / "default") == []
