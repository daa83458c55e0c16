"""Who a token speaks for: both planes trust the same tokens, by the same settings and the same code."""

from compiled import finder

finder.install()  # before the first module that is compiled
