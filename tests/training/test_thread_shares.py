"""Processes of a run on one machine share its cores."""

import pytest
import torch

from microstep.training import device


@pytest.mark.parametrize(("typed", "environment", "expected"), [(None, None, 4), (None, "8", 8), (3, None, 3)])
def test_processes_share_the_cores(monkeypatch, typed, environment, expected) -> None:
    """Each of two has half of the threads, unless they are typed or OMP_NUM_THREADS says how many each has."""
    before = torch.get_num_threads()
    monkeypatch.setattr(device, "DEFAULT_THREADS", 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if environment:
        monkeypatch.setenv("OMP_NUM_THREADS", environment)
    set_to = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    device.configure_torch(typed, True, local_processes=2)
    assert set_to == [expected]
    assert torch.get_num_threads() == before
