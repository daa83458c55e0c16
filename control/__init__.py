"""The control plane: the API that says who may use what, and the services that carry it to Redis and usage back."""
