"""Garbage collection is paused while modules are imported."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest

from microstep.utils.imports import imports_without_gc


@pytest.fixture(autouse=True)
def nothing_frozen() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_the_collector_is_off_in_the_block_only():
    """Afterwards, also after an error, it is on."""
    with pytest.raises(ImportError), imports_without_gc():
        assert not gc.isenabled()
        import no_such_module  # noqa: F401
    assert gc.isenabled()


def test_what_is_imported_is_excluded(tmp_path, monkeypatch):
    """The objects of new modules are not scanned again; without new modules, all objects are."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "made_up_module.py").write_text("values = [[]]\n")
    with imports_without_gc():
        pass
    assert gc.get_freeze_count() == 0
    with imports_without_gc():
        import made_up_module  # noqa: F401
    assert gc.get_freeze_count() > 0
    del sys.modules["made_up_module"]
