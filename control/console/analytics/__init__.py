"""Pages of what the vendor earns."""
