"""Measures the cost and the error of each precision with an experiment's own model and batch."""
