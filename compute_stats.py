"""Compute a data set's statistics and check its health. See `python compute_stats.py --help`."""

from microstep.cli.programs import compute_stats

if __name__ == "__main__":
    compute_stats()
