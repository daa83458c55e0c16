"""The contract between the planes: the words, the laws, the keys and texts in Redis, and a client of the ledger."""
