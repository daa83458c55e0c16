"""Whether a request may go on: who asks, what it costs, what the ledger says of it, and what becomes of its charge."""
