"""The processes that a launcher has started are found in its environment variables."""

import pytest

from microstep.training.builders import divide_workers
from microstep.utils.world import find_world, first_host

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "MASTER_PORT": "29500"}
TASK = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "6", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "7"}
SRUN = TASK | {"SLURM_STEP_ID": "0", "SLURM_STEP_TASKS_PER_NODE": "2(x3)", "SLURM_STEP_NODELIST": "node[07-09]"}


def test_a_process_alone_has_no_world() -> None:
    """Neither a shell, nor a batch script, nor a step of one task is one of several processes."""
    script = {name: value for name, value in SRUN.items() if "STEP" not in name}
    for environment in ({}, script | {"SLURM_NTASKS": "6"}, SRUN | {"SLURM_STEP_NUM_TASKS": "1"}, {"RANK": "x"}):
        assert find_world(environment) is None


@pytest.mark.parametrize(
    ("agent", "rank", "is_host"), [("True", "0", False), ("False", "0", True), ("True", "5", False)]
)
def test_torchrun_s_agent_may_hold_the_store(agent: str, rank: str, is_host: bool) -> None:
    """If it doesn't, rank 0 does."""
    world = find_world(TORCHRUN | {"RANK": rank, "TORCHELASTIC_USE_AGENT_STORE": agent})
    assert world is not None
    assert (world.size, world.local_rank, world.local_size, world.launcher) == (8, 1, 4, "torchrun")
    assert world.is_host is is_host


def test_the_tasks_of_srun_meet_at_the_first_host() -> None:
    """At a port that two steps of a job do not share, unless MASTER_ADDR and MASTER_PORT are set."""
    world, other = find_world(SRUN), find_world(SRUN | {"SLURM_STEP_ID": "1"})
    assert world is not None
    assert other is not None
    assert (world.rank, world.size, world.local_rank, world.local_size) == (3, 6, 1, 2)
    assert (world.address, world.launcher, world.is_host) == ("node07", "srun", False)
    assert world.port != other.port
    chosen = find_world(SRUN | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1234"})
    assert chosen is not None
    assert (chosen.address, chosen.port) == ("10.0.0.1", 1234)


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("one", "one"),
        ("a,b", "a"),
        ("gpu[3,5-7]", "gpu3"),
        ("rack[1-2]-n[01-04],x", "rack1-n01"),
        ("n[007].net", "n007.net"),
    ],
)
def test_the_first_host_of_a_list(nodes: str, host: str) -> None:
    """Brackets hold numbers and ranges, with leading zeros."""
    assert first_host(nodes) == host


def test_loader_processes_are_divided() -> None:
    """The processes of a run share the cores; a number that is given is one for each."""
    assert 2 * divide_workers(None, 2) <= divide_workers(None, 1)
    assert divide_workers(3, 2) == 3
