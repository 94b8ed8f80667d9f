"""Helpers that don't depend on experiments: files, text, tables, plots, the terminal, signals, random numbers."""
