"""The page that the console opens with, and the page for an address that has none."""
