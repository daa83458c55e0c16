"""A client's connection is read here, its requests are kept in order, and the connection ends."""
