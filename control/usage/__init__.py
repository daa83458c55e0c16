"""Usage: from the event streams in Redis to rows and counters in Postgres."""
