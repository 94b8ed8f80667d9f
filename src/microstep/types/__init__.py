"""Values and protocols that all parts of the package share: `data`, `protocols` and `events`."""
