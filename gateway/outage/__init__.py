"""Requests that a route forwards while Redis is away are journaled here, and charged when it is back."""
