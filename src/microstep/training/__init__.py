"""Builds the components of an experiment from its config and trains the model."""
