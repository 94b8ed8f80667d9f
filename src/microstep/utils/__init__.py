"""Helpers that know nothing of experiments: files, text, tables, plots, the terminal, signals, random numbers."""
