"""check=precision: cost and error of each precision."""
