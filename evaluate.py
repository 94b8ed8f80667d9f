"""Evaluate a run, compare runs, or classify images. See `python evaluate.py --help`."""

from microstep.cli.programs import evaluate

if __name__ == "__main__":
    evaluate()
