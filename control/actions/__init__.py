"""What an admin does to an organization: its effect is shown before, it is done once, and undone where it can be."""
