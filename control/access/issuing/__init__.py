"""The control plane as an issuer: its signing keys, the key set that says which they are, and the tokens it mints."""
