"""Why an action is not done. Each message is a sentence for the admin."""

from collections.abc import Sequence

from control.sql.journal import Entry


class ChangedSince(Exception):
    """The organization is not as it was when the effect was shown, or when the action was done."""

    def __init__(self, message: str, entries: Sequence[Entry] = ()) -> None:
        super().__init__(message)
        self.entries = entries
        """What the journal has of it since then, the newest first."""


class ActionUnknown(Exception):
    """There is no such action."""


class ActionOver(Exception):
    """It was decided, done or undone already, so that this cannot happen to it."""


class NotUndoable(Exception):
    """It cannot be undone; the message says why."""


class SamePerson(Exception):
    """Whoever asked for it cannot approve it."""


class NotPossible(Exception):
    """It cannot be done to this organization."""


class PreviewUnknown(Exception):
    """`state` is no preview's."""
