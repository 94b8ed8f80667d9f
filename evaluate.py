"""Evaluate a run again, classify pictures with it, or compare it with another.

`python evaluate.py --help` says what to type.
"""

from microstep.cli.programs import evaluate

if __name__ == "__main__":
    evaluate()
