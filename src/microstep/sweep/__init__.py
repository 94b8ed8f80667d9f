"""Sweeps: plans, runs and reports the jobs of one `-m` command."""
