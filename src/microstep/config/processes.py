"""Decides how many processes an experiment is planned for, and how many run it."""

from typing import Any

from omegaconf import DictConfig, open_dict

from microstep.config.experiment import planned_processes
from microstep.errors import ConfigError
from microstep.utils.world import World, find_world, list_gpus


def plan_processes(config: DictConfig) -> None:
    """Set `strategy.processes` of a new experiment, if it has the key and no value."""
    node: Any = config.get("strategy", {})
    if "processes" not in node or node.processes is not None:
        return
    world = find_world()
    processes = world.size if world else len(list_gpus()) * (config.device in ("auto", "cuda"))
    if not processes:
        reason = "it can't be guessed: no torchrun or srun has started this program, and there is no GPU"
        raise ConfigError("strategy.processes=null", reason, "type how many: strategy.processes=2")
    with open_dict(config):
        node.processes = processes


def real_processes(config: DictConfig) -> int:
    """Return the number of processes that run an experiment without torchrun or srun."""
    return int(config.strategy.get("run_on") or planned_processes(config))


def find_run_world(config: DictConfig) -> World:
    """Return the processes that run an experiment, as rank 0 sees them. Their port is 0 if they are not started yet."""
    world, node = find_world(), config.strategy
    is_parallel = "run_on" in node
    if world is not None and not is_parallel:
        reason = f"{world.launcher} started {world.size} processes, and the run has one"
        raise ConfigError("strategy=single", reason, f"add strategy=ddp, or start it without {world.launcher}")
    size = (node.run_on or (world.size if world else real_processes(config))) if is_parallel else 1
    if world is not None and size != world.size:
        reason = f"{world.launcher} started {world.size} processes"
        raise ConfigError(f"strategy.run_on={size}", reason, "leave it out")
    if size > 1 and ":" in config.device:
        raise ConfigError(f"device={config.device}", "each process takes a GPU of its own", "choose device=cuda")
    return world or World(0, size, 0, size, "127.0.0.1", 0, True, "train")
