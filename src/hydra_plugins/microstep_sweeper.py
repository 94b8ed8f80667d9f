"""The sweeper of train.py, where Hydra looks for plugins. Hydra reads this file at each start: it is light."""

from __future__ import annotations

from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class RunSweeper(Sweeper):
    """Runs what is left of the sweep that the front door has checked, with any launcher of Hydra's."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher; in processes of its own each job gets one that forks another."""
        from microstep.roster import CURRENT
        from microstep.sweep import Worker

        (self.described,) = CURRENT
        self.here = config.hydra.launcher._target_.startswith("hydra._internal.")
        task = task_function if self.here else Worker(task_function, self.described.directory)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run it."""
        from microstep.sweep import run

        run(self.described, self.launcher, self.here)
