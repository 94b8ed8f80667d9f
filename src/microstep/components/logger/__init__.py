"""Loggers: console, metrics.csv, TensorBoard, and sinks outside the run."""

from microstep.components.logger.sinks import JsonLines, MLflow, WeightsAndBiases

__all__ = ["JsonLines", "MLflow", "WeightsAndBiases"]
