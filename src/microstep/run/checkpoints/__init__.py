"""Checkpoints of a run: writing, reading, verifying, recovering."""
