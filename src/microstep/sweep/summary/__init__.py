"""Summary of a sweep: summary.csv, summary.md and summary.html, made from its directory alone."""
