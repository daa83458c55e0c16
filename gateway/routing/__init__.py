"""A request finds its route here, and what the route says of its token, its fields and its client."""
