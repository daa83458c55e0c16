"""A finished exchange is counted here and becomes a line of the access log."""
