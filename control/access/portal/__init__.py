"""How people of an organization come into its portal, and the sessions that follow."""
