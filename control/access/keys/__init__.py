"""API keys: what is stored of them, how they change, that Redis can find them, and what happens to one that leaked."""
