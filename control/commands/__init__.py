"""What the command line has done without a running control plane: synchronous, each with an event loop of its own."""
