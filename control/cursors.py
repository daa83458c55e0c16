"""The cursor of a page: the id of the entry that the page before ended with, as a client sends it back.

A cursor that no entry has is refused. A page behind nothing is empty, which looks like the end of the list.
"""


class CursorUnknown(Exception):
    """The list has no entry with this id, or has it no more."""

    def __init__(self, parameter: str) -> None:
        super().__init__("is the id of no entry of this list: begin with its first page")
        self.parameter = parameter
