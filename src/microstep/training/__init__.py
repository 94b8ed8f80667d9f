"""Builds an experiment's parts from its config and trains them."""
