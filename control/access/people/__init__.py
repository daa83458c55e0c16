"""Machines and people: service tokens, users, organizations' members, admin roles, and their mirror of Clerk."""
