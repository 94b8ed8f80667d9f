"""Launchers of a sweep: run its jobs one after the other or in parallel."""
