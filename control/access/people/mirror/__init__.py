"""The mirror of Clerk: users, organizations and members as they are there, looked at when an event names them."""
