"""One number of a JSON text of any size, found while the text passes. Pure.

It keeps a few bytes, whatever the text holds: what is not on the path is skipped by its quotes and brackets, where a
parser would make values of it, or hold a whole string. It may be cut at any byte. In a valid text it finds what
`json.loads` finds, where the last of equal names counts; of what is no JSON it finds something or nothing, and goes on.
"""

import json
import re
from typing import Final

_STRUCTURE: Final = re.compile(rb'["{}\[\],:]')
_IN_STRING: Final = re.compile(rb'["\\]')
_QUOTE, _BACKSLASH, _OPEN, _COMMA, _COLON = b'"\\{,:'
SCALAR_BYTES_MAX: Final = 32  # longer ones are no number of units
ANOTHER_KIND: Final = b"not a number"


class JsonPath:
    """`value` is the text of the last scalar found at the path: a number, `true`, `false`; ANOTHER_KIND for a string,
    an array or an object. A null counts as nothing: streams tell it until they know."""

    def __init__(self, path: str) -> None:
        """`path`: names of members, separated by dots, from the outermost object."""
        self._path = [name.encode() for name in path.split(".")]
        self._value: bytes | None = None  # of the documents before this one
        self._clear()

    @property
    def value(self) -> bytes | None:
        return self._found if self._found is not None else self._value

    def end_document(self) -> None:
        """What follows is another text; what was found stays found until that has the path, too."""
        self._value = self.value
        self._clear()

    def _clear(self) -> None:
        self._found: bytes | None = None
        self._depth = 0  # brackets that are open
        self._level = 0  # of them, the objects that the path leads through: equal when the path leads here
        self._names = False  # a member's name comes next, in the innermost object of the path
        self._hit = False  # its value comes next, and the path leads there
        self._in_string = self._escaped = False
        self._name: bytearray | None = None  # of a member of that object, as far as it was read
        self._scalar: bytearray | None = None  # the value itself

    def feed(self, data: bytes) -> None:
        at, end = 0, len(data)
        while at < end:
            if self._in_string:
                at = self._string(data, at)
                continue
            match = _STRUCTURE.search(data, at)
            stop = end if match is None else match.start()
            if self._scalar is not None and len(self._scalar) <= SCALAR_BYTES_MAX:
                self._scalar += data[at:stop].strip(b" \t\r\n")[: SCALAR_BYTES_MAX + 1]
            if match is None:
                return
            at = stop + 1
            self._structure(data[stop])

    def _string(self, data: bytes, at: int) -> int:
        """Reads within a string, and returns how far."""
        if self._escaped:
            self._escaped = False
            stop = at + 1
        else:
            match = _IN_STRING.search(data, at)
            stop = len(data) if match is None else match.start()
            if match is not None and data[stop] == _BACKSLASH:
                self._escaped = True
                stop += 1
            elif match is not None:
                self._in_string = False
        if self._name is not None:
            # An escape takes at most six bytes for one of the name.
            if len(self._name) <= 6 * len(self._path[self._level - 1]):
                self._name += data[at : min(stop, at + 6 * len(self._path[self._level - 1]) + 1)]
            if not self._in_string:
                self._hit = self._is_wanted(bytes(self._name))
                self._name = None
        return stop if self._in_string else stop + 1

    def _is_wanted(self, name: bytes) -> bool:
        wanted = self._path[self._level - 1]
        if b"\\" not in name:
            return name == wanted
        try:
            return bool(json.loads(b'"%b"' % name) == wanted.decode())
        except ValueError:
            return False

    def _structure(self, sign: int) -> None:
        here = self._depth == self._level  # directly in the innermost object of the path, or outside of all
        if sign == _QUOTE:
            self._in_string = True
            if here and self._names:
                self._name, self._hit = bytearray(), False
            elif here and self._scalar is not None:
                self._is_another_kind()
        elif sign in b"{[":
            self._depth += 1
            if here and self._scalar is not None:
                self._is_another_kind()
            elif here and sign == _OPEN and (self._level == 0 or (self._hit and not self._names)):
                self._level += 1
                self._names, self._hit = True, False
        elif not here:
            if sign in b"}]":
                self._depth -= 1
        elif sign == _COLON:
            if self._names and self._hit:
                self._found = None  # the last of equal names counts
                self._scalar = bytearray() if self._level == len(self._path) else None
            self._names = False
        else:
            self._end_value()
            self._names = sign == _COMMA and self._level > 0
            if sign != _COMMA and self._depth:
                self._depth -= 1
                self._level -= 1
                if not self._depth:
                    self.end_document()

    def _is_another_kind(self) -> None:
        self._found, self._scalar, self._hit = ANOTHER_KIND, None, False

    def _end_value(self) -> None:
        if self._scalar is not None and self._scalar != b"null":
            self._found = bytes(self._scalar)
        self._scalar, self._hit = None, False
