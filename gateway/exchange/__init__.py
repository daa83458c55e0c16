"""A client's request is received, forwarded and answered here."""
