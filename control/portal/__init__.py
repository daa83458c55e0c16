"""The pages for an organization's own people: what it uses and pays, its keys, sites and people."""
