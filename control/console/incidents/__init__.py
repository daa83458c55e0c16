"""The pages of incidents: live tiles, the list, one incident, and what to do about each kind."""
