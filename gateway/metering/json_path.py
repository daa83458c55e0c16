"""Numbers of a JSON text of any size, found while the text passes. Pure.

It keeps a few bytes, whatever the text holds: what is not on a path is skipped by its quotes and brackets, where a
parser would make values of it, or hold a whole string. It may be cut at any byte. In a valid text it finds what
`json.loads` finds, where the last of equal names counts; of what is no JSON it finds something or nothing, and goes on.
"""

import json
import re
from collections.abc import Sequence
from typing import Final

_STRUCTURE: Final = re.compile(rb'["{}\[\],:]')
_DEEPER: Final = re.compile(rb'["{}\[\]]')  # where no path leads, names and values are of no interest
_IN_STRING: Final = re.compile(rb'["\\]')
_QUOTE, _BACKSLASH, _OPEN, _COMMA, _COLON = b'"\\{,:'
SCALAR_BYTES_MAX: Final = 32  # longer ones are no number of units
ANOTHER_KIND: Final = b"not a number"


class _Member:
    """A name on one of the paths, and what the paths have behind it."""

    __slots__ = ("below", "by_spelling", "end", "members", "name_bytes_max")

    def __init__(self) -> None:
        self.members: dict[str, _Member] = {}
        self.by_spelling: dict[bytes, _Member] = {}
        self.name_bytes_max = 0  # of the names in `members`
        self.end: int | None = None
        """The path that ends here, by its index."""
        self.below: tuple[int, ...] = ()
        """The paths that lead through here or end here."""


class PathTree:
    """Paths that are looked for together. Made once, and shared."""

    def __init__(self, paths: Sequence[str]) -> None:
        """`paths`: each names of members, separated by dots, from the outermost object; no two are equal."""
        self.root = _Member()
        self.count = len(paths)
        for index, path in enumerate(paths):
            at = self.root
            for name in path.split("."):
                member = at.members.get(name)
                if member is None:
                    member = at.members[name] = at.by_spelling[name.encode()] = _Member()
                    at.name_bytes_max = max(at.name_bytes_max, len(name.encode()))
                member.below += (index,)
                at = member
            at.end = index


class JsonPaths:
    """`value` is the text of the last scalar found at a path: a number, `true`, `false`; ANOTHER_KIND for a string,
    an array or an object. A null counts as nothing: streams tell it until they know."""

    def __init__(self, tree: PathTree) -> None:
        self._root = tree.root
        self._earlier: list[bytes | None] = [None] * tree.count  # of the documents before this one
        self._clear()

    def value(self, index: int) -> bytes | None:
        """Of the path with this index."""
        text = self._texts[index]
        return text if text is not None else self._earlier[index]

    def end_document(self) -> None:
        """What follows is another text; what was found stays found until that has the path, too."""
        self._earlier = [self.value(index) for index in range(len(self._earlier))]
        self._clear()

    def _clear(self) -> None:
        self._texts: list[bytes | None] = [None] * len(self._earlier)
        self._depth = 0  # brackets that are open
        self._objects = [self._root]  # those of them that the paths lead through, and the text itself before them
        self._path_depth = 0  # how many those are: equal to `_depth` when the paths lead here
        self._names = False  # a member's name comes next, in the innermost object of the paths
        self._hit: _Member | None = self._root  # whose value comes next, when the paths lead there
        self._in_string = self._escaped = False
        self._name: bytearray | None = None  # of a member of that object, as far as it was read
        self._scalar: bytearray | None = None  # the value itself, of a path that ends here

    def feed(self, data: bytes) -> None:
        at, end = 0, len(data)
        while at < end:
            if self._in_string:
                at = self._string(data, at)
                continue
            match = (_STRUCTURE if self._depth == self._path_depth else _DEEPER).search(data, at)
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
            inner = self._objects[-1]
            # An escape takes at most six bytes for one of the name.
            if len(self._name) <= 6 * inner.name_bytes_max:
                self._name += data[at : min(stop, at + 6 * inner.name_bytes_max + 1)]
            if not self._in_string:
                self._hit = _named(inner, bytes(self._name))
                self._name = None
        return stop if self._in_string else stop + 1

    def _structure(self, sign: int) -> None:
        on_path = self._depth == self._path_depth  # directly in the innermost object of the paths, or outside of all
        if sign == _QUOTE:
            self._in_string = True
            if on_path and self._names:
                self._name, self._hit = bytearray(), None
            elif on_path and self._scalar is not None:
                self._is_another_kind()
        elif sign in b"{[":
            self._depth += 1
            if on_path:
                self._open(sign)
        elif not on_path:
            if sign in b"}]":
                self._depth -= 1
        elif sign == _COLON:
            if self._names and self._hit is not None:
                for index in self._hit.below:
                    self._texts[index] = None  # the last of equal names counts
                self._scalar = bytearray() if self._hit.end is not None else None
            self._names = False
        else:
            self._end_value()
            self._names = sign == _COMMA and self._path_depth > 0
            if sign != _COMMA and self._depth:
                self._depth -= 1
                self._path_depth -= 1
                self._objects.pop()
                if not self._depth:
                    self.end_document()

    def _open(self, sign: int) -> None:
        """An object or an array begins where the paths lead."""
        hit = self._hit
        if self._scalar is not None:
            self._is_another_kind()
        if sign == _OPEN and hit is not None and hit.members and not self._names:
            self._objects.append(hit)
            self._path_depth += 1
            self._names, self._hit = True, None

    def _is_another_kind(self) -> None:
        if self._hit is not None and self._hit.end is not None:
            self._texts[self._hit.end] = ANOTHER_KIND
        self._scalar, self._hit = None, None

    def _end_value(self) -> None:
        hit = self._hit
        if self._scalar is not None and self._scalar != b"null" and hit is not None and hit.end is not None:
            self._texts[hit.end] = bytes(self._scalar)
        self._scalar = None
        self._hit = self._root if self._depth == 0 else None


def _named(inner: _Member, name: bytes) -> _Member | None:
    if b"\\" not in name:
        return inner.by_spelling.get(name)
    try:
        return inner.members.get(json.loads(b'"%b"' % name))
    except ValueError:
        return None
