"""Notifications of the vendor's own system: signed webhooks, from an outbox, at least once."""
