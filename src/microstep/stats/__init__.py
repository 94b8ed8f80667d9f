"""What compute_stats.py finds in a data set besides its figures, and how it says so."""
