"""The pages about one person's data: what is stored, its export, and its erasure."""
