"""Pages of organizations: the list of all, and of one of them what it has, uses, pays, and what happened to it."""
