"""The control plane's metrics: which there are, and where each number is read."""
