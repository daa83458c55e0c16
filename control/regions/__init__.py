"""Several regions share what an organization may use: each holds a part of it, and all parts together are never
more."""
