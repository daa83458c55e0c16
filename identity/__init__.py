"""Who a token speaks for: both planes believe the same tokens, by the same settings and the same code."""
