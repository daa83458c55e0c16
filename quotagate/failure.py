"""What a command could not do, in one plain line."""


class CommandFailed(Exception):
    """Its text is what the operator reads; the command ends with exit code 1."""
