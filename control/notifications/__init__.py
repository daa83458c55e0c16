"""What the vendor's own system is told: signed webhooks, from an outbox, at least once."""
