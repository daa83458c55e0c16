"""A gateway process starts here: the supervisor, its workers, and what both tell about themselves."""
