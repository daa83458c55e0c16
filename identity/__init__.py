"""Who a token speaks for: both planes trust the same tokens, by the same settings and the same code."""
