"""Content codings (RFC 9110 section 8.4.1): those that a reader of bodies may be sent, and a body without them.

A body is decoded slice by slice in bounded memory, and what one read of it costs is bounded, too: a bomb must not hold
up the worker. Browsers, curl and nginx disagree on what `deflate` is and on what may follow a gzip member; what any of
them takes is taken here.
"""

import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

import brotli

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DECODED_BYTES_MAX: Final = 4 * 1024 * 1024  # of one read of the body, over all of its codings
SLICE_BYTES: Final = 65_536
CODINGS_MAX: Final = 3  # one upon the other
FRAME_COST_BYTES: Final = 1024  # what beginning a member or a frame counts like: one may be of nothing but its head
ZSTD_WINDOW_LOG_MAX: Final = 23  # 8 MiB: RFC 9659 allows no sender more
_GZIP_MAGIC: Final = b"\x1f\x8b"

_SAME: Final = {b"x-gzip": b"gzip"}  # RFC 9110 section 8.4.1.3
_MEMBER: Final = re.compile(
    rb"[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*(?:;[ \t]*[qQ]=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?))?[ \t]*"
)


class Undecodable(Exception):
    """The body is not in the coding that its field names, or too much of it for one read."""


class _Budget:
    """What may still be decoded of one read."""

    def __init__(self) -> None:
        self.left = DECODED_BYTES_MAX

    def spend(self, byte_count: int) -> None:
        self.left -= byte_count
        if self.left < 0:
            raise Undecodable("one read of it decodes to too much")


class _Coding(Protocol):
    def decode(self, data: bytes, budget: _Budget) -> Iterator[bytes]:
        """More of the body, in slices. Raises Undecodable, or its library's error."""


class _Deflated:
    """gzip (RFC 1952) of any number of members, zlib (RFC 1950) or raw deflate (RFC 1951), by its first two bytes: none
    of the three can begin like another."""

    def __init__(self) -> None:
        self._start = b""
        self._inflate: zlib._Decompress | None = None
        self._members = 0  # that have ended
        self._over = False

    def decode(self, data: bytes, budget: _Budget) -> Iterator[bytes]:
        while not self._over:
            if self._inflate is None:
                data, self._start = self._start + data, b""
                if len(data) < len(_GZIP_MAGIC):
                    self._start = data
                    return
                budget.spend(FRAME_COST_BYTES)
                self._inflate = self._begin(data)
                if self._inflate is None:
                    return
            try:
                part = self._inflate.decompress(data, SLICE_BYTES)
            except zlib.error:
                if not self._members:
                    raise
                self._over = True  # what follows a whole member and is none is padding: gzip and curl drop it
                return
            budget.spend(len(part))
            if part:
                yield part
            if self._inflate.eof:
                data, self._inflate = self._inflate.unused_data, None
                self._members += 1
            else:
                data = self._inflate.unconsumed_tail
                if not data and len(part) < SLICE_BYTES:
                    return

    def _begin(self, data: bytes) -> "zlib._Decompress | None":
        if data.startswith(_GZIP_MAGIC):
            return zlib.decompressobj(16 + zlib.MAX_WBITS)
        if self._members:
            self._over = True
            return None
        wrapped = data[0] & 0x8F == 0x08 and int.from_bytes(data[:2], "big") % 31 == 0
        return zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)


class _Brotli:
    """RFC 7932."""

    def __init__(self) -> None:
        self._decompressor = brotli.Decompressor()

    def decode(self, data: bytes, budget: _Budget) -> Iterator[bytes]:
        decompressor = self._decompressor
        if decompressor.is_finished():
            raise Undecodable("more follows its end")
        while True:
            part = decompressor.process(data, output_buffer_limit=SLICE_BYTES)
            budget.spend(len(part))
            if part:
                yield part
            if decompressor.is_finished() or decompressor.can_accept_more_data():
                return
            data = b""


class _Zstandard:
    """RFC 8878: any number of frames, also skippable ones."""

    def __init__(self) -> None:
        self._frame: zstd.ZstdDecompressor | None = None

    def decode(self, data: bytes, budget: _Budget) -> Iterator[bytes]:
        while data or self._frame is not None:
            if self._frame is None:
                budget.spend(FRAME_COST_BYTES)
                options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG_MAX}
                self._frame = zstd.ZstdDecompressor(options=options)
            part = self._frame.decompress(data, SLICE_BYTES)
            budget.spend(len(part))
            if part:
                yield part
            if self._frame.eof:
                data, self._frame = self._frame.unused_data, None
            elif self._frame.needs_input:
                return
            else:
                data = b""


_CODINGS: Final[dict[bytes, Callable[[], _Coding]]] = {
    b"gzip": _Deflated,
    b"x-gzip": _Deflated,
    b"deflate": _Deflated,
    b"br": _Brotli,
    b"zstd": _Zstandard,
}
_OFFERED: Final = (b"gzip", b"br", b"zstd", b"deflate")


class Decoder:
    """Takes the codings of one body off, as it comes."""

    def __init__(self, codings: Iterable[bytes]) -> None:
        """`codings`: the values of the Content-Encoding fields, in order. Raises Undecodable for an unknown one."""
        names = [name for value in codings for part in value.split(b",") if (name := part.strip(b" \t").lower())]
        applied = [name for name in names if name != b"identity"]
        if len(applied) > CODINGS_MAX or any(name not in _CODINGS for name in applied):
            raise Undecodable("it is in a coding that is not known here")
        self._codings: list[_Coding] = [_CODINGS[name]() for name in reversed(applied)]
        self._budget = _Budget()

    @property
    def is_needed(self) -> bool:
        return bool(self._codings)

    def refill(self) -> None:
        """A further read begins."""
        self._budget.left = DECODED_BYTES_MAX

    def decode(self, data: bytes) -> Iterator[bytes]:
        """More of the body. Raises Undecodable."""
        try:
            yield from _through(self._codings, data, self._budget)
        except (zlib.error, brotli.error, zstd.ZstdError, EOFError) as e:
            raise Undecodable(str(e)) from e


def _through(codings: list[_Coding], data: bytes, budget: _Budget) -> Iterator[bytes]:
    if not codings:
        yield data
        return
    first, *others = codings
    for part in first.decode(data, budget):
        yield from _through(others, part, budget)


def acceptable(values: list[bytes]) -> bytes | None:
    """What a client's Accept-Encoding fields become for an upstream whose answer must be decoded: of the codings that
    the client takes those that are known here, with their weights, and `identity` where nothing is left. None where
    that is what they say already (RFC 9110 section 12.5.3)."""
    accepted: list[bytes] = []
    names: set[bytes] = set()
    others: bytes | None = None  # the weight of `*`; empty for none
    usable = changed = False
    for text in (part for value in values for part in value.split(b",") if part.strip(b" \t")):
        member = _MEMBER.fullmatch(text)
        name = member.group(1).lower() if member else b""
        if member is None or (name not in _CODINGS and name not in (b"identity", b"*")):
            changed = True
            continue
        weight = member.group(2)
        if name == b"*":
            others, changed = weight or b"", True
            continue
        names.add(_SAME.get(name, name))
        accepted.append(text.strip(b" \t"))
        usable = usable or _is_positive(weight)
    if others is not None:
        # Spelt out, since `*` stands for codings that are not known here, too. `identity` is excluded by `*;q=0` only.
        meant = [name for name in (*_OFFERED, b"identity") if name not in names]
        if others and not _is_positive(others):
            names.add(b"identity")
        else:
            meant = [name for name in meant if name != b"identity"]
            usable = usable or bool(meant)
        accepted += [b"%b;q=%b" % (name, others) if others else name for name in meant]
    forbidden = b"identity" in names and not usable
    if not accepted or forbidden:
        return b"identity"
    return b", ".join(accepted) if changed else None


def _is_positive(weight: bytes | None) -> bool:
    return not weight or bool(weight.strip(b"0."))


_PART_OF_IT: Final = frozenset((b"range", b"if-range"))
_ACCEPT_ENCODING: Final = b"accept-encoding"


def readable(lines: list[bytes]) -> list[bytes]:
    """Header lines of a request whose answer's body must be read: the client cannot have it come in a coding that is
    not known here, or only a part of it (a server may ignore Range, RFC 9110 section 14.2)."""
    values, others = [], []
    for line in lines:
        spelt, _, value = line.partition(b":")
        name = spelt.lower().replace(b"_", b"-")  # to a CGI-like upstream Accept_Encoding is the same field
        if name == _ACCEPT_ENCODING:
            values.append((spelt, value.strip(), line))
        elif name not in _PART_OF_IT:
            others.append(line)
    if not values:
        return others
    meant = [value for spelt, value, _ in values if b"_" not in spelt]
    if len(meant) == len(values) and acceptable(meant) is None:
        return [*others, *(line for _, _, line in values)]
    sent = acceptable(meant) or b", ".join(meant)
    return [*others, b"Accept-Encoding: %b\r\n" % sent]
