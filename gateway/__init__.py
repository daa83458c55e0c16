"""The data plane: a request is taken from its organization's quota and forwarded, or refused."""
