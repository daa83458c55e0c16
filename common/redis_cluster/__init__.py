"""A Redis Cluster: who holds which slots, and redis-py's commands at whoever holds the key (docs/decisions/0057)."""
