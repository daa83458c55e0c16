"""Both stores of one moment, in a directory of files, and back from there."""
