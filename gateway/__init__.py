"""The data plane: a request is taken from its organization's quota and forwarded, or refused."""

from compiled import finder

finder.install()  # before the first module that is compiled
