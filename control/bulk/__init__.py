"""One action of an admin for all organizations that a filter matches: shown before, done in the background."""
