"""Compute a data set's exact statistics, and report on its health.

`python compute_stats.py --help` says what to type.
"""

from microstep.cli.programs import compute_stats

if __name__ == "__main__":
    compute_stats()
