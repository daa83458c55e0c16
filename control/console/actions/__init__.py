"""What an admin does to an organization, and what waits for a second person."""
