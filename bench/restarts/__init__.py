"""Rolling restarts and releases side by side under load: whether a client ever notices."""
