"""The contract between the planes: the words, the laws, the keys and texts in Redis, and a client of the ledger."""

from compiled import finder

finder.install()  # before the first module that is compiled
