"""Lightning: a LightningModule, and a Trainer with its defaults (bar, logger, a checkpoint each epoch)."""

from __future__ import annotations

from typing import Any

import lightning as L
from benchmarks.contestants.clock import Clock
from benchmarks.contestants.workload import Workload, loss_function
from torch import Tensor


class Classifier(L.LightningModule):
    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.workload, self.model = workload, workload.build_model()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        inputs, targets = batch
        loss = loss_function(self.model(inputs), targets)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        inputs, targets = batch
        outputs = self.model(inputs)
        self.log("val_loss", loss_function(outputs, targets))
        self.log("val_acc", (outputs.argmax(1) == targets).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer, scheduler = self.workload.build_optimizer(self.model)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class EpochClock(L.Callback):
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.clock.start()

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.clock.lap(trainer.callback_metrics["val_acc"].item())


def train(workload: Workload, clock: Clock, precision: str = "32-true") -> None:
    """Train."""
    L.seed_everything(workload.seed)
    model = Classifier(workload)
    trainer = L.Trainer(max_epochs=workload.epochs, precision=precision, callbacks=[EpochClock(clock)])
    trainer.fit(model, *workload.resident_loaders())
