"""Servers of the ledger are struck under load, while Sentinels watch over them."""
