"""Connections to the APIs behind the gateway are made, shared, watched and chosen here."""
