"""Summary of a sweep: summary.csv, summary.md and summary.html, made from its directory alone."""

from microstep.sweep.summary.write import write_summary

__all__ = ["write_summary"]
