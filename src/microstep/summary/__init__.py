"""Write summary.csv, summary.md and summary.html of a sweep from its directory."""

from microstep.summary.writing import write_summary

__all__ = ["write_summary"]
