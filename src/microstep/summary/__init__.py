"""What a sweep came to: summary.csv, summary.md and summary.html, made from its directory alone."""

from microstep.summary.writing import write_summary

__all__ = ["write_summary"]
