"""Forms of HTTP that need no state of the gateway, and the timeouts of its connections."""
