"""Everything about an experiment's config that needs no torch: schema, checks, composing, names, allowlist."""
