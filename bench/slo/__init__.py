"""Whether what was promised is kept: each objective of config/observability.yaml, measured on a stack of its own."""
