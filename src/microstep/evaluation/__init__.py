"""Uses finished runs: evaluates, predicts, compares."""
