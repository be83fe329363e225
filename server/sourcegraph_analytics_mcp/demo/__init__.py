"""A made-up company behind an embedded upstream."""
