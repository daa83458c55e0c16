"""The failure of a command, in one line."""


class CommandFailed(Exception):
    """Its text is what the operator reads; the command ends with exit code 1."""
