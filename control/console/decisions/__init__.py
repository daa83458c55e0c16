"""The pages of decisions: what was refused, why, and what would be decided of a request now."""
