"""A run directory: its files, lock, config, record, checkpoints, and how a run is resumed."""
