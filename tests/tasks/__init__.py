"""Two tasks outside src that show how to extend microstep."""
