"""Values and protocols that the rooms share; see `data`, `protocols` and `events`."""
