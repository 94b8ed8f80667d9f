"""Runs a sweep's jobs, one after the other or in parallel."""
