"""The keys of one issuer: read from a file, a URL, or by discovery, and kept fresh."""
