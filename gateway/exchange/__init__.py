"""A client's request is read, decided, forwarded and answered here."""
