"""Header fields that a route, or its upstream, adds and removes. Pure.

What it takes to send a request is made once for each header section and each answer's head: both repeat.
"""

from collections.abc import Iterable
from typing import Final, Self

from gateway.http.cors import ALLOW_ORIGIN, exposing
from gateway.routing.token_sources import Sources
from gateway.settings.rewriting import Credential, RequestHeaders, ResponseHeaders, dashed

BLOCKS_MAX: Final = 256  # of one route; most answers of a second have the same fields
BLOCK_BYTES_MAX: Final = 4096


def _lines(settings: RequestHeaders | ResponseHeaders) -> list[bytes]:
    added = (*settings.set.items(), *settings.add.items())
    return [b"%b: %b\r\n" % (name.encode(), value.get_secret_value().encode()) for name, value in added]


def _dropped(settings: RequestHeaders | ResponseHeaders) -> frozenset[bytes]:
    return frozenset(dashed(name) for name in (*settings.set, *settings.remove))


class Edits:
    """Lines (`Name: value` CRLF) without those of some names, and with others behind."""

    __slots__ = ("_added", "_blocks", "_dropped", "_readable")

    def __init__(self, dropped: frozenset[bytes], added: list[bytes]) -> None:
        self._dropped = dropped
        self._added = added
        # The operator, in place of the upstream, lets pages of other origins read the answers.
        self._readable = any(line.partition(b":")[0].lower() == ALLOW_ORIGIN for line in added)
        self._blocks: dict[bytes, bytes] = {}

    @classmethod
    def of(cls, settings: RequestHeaders | ResponseHeaders) -> Self | None:
        return cls(_dropped(settings), _lines(settings)) if settings.any else None

    @property
    def added(self) -> list[bytes]:
        return self._added

    def kept(self, lines: Iterable[bytes]) -> list[bytes]:
        dropped = self._dropped
        return [line for line in lines if dashed(line.partition(b":")[0]) not in dropped]

    def of_block(self, lines: bytes) -> bytes:
        """Lines in one piece, as they come and as they go on."""
        if (known := self._blocks.get(lines)) is not None:
            return known
        whole = [*self.kept(lines.splitlines(keepends=True)), *self._added]
        if self._readable:
            whole = exposing(whole)
        edited = b"".join(whole)
        if len(lines) <= BLOCK_BYTES_MAX:
            if len(self._blocks) >= BLOCKS_MAX:
                self._blocks.clear()
            self._blocks[lines] = edited
        return edited


class Rewriting:
    """How the fields of a route's requests change on their way. Only routes that change something have one."""

    __slots__ = ("_credential", "_credential_drops", "_edits", "_tokens", "own_host")

    def __init__(
        self, tokens: Sources | None, edits: Edits | None, credential: Credential | None, *, own_host: bool
    ) -> None:
        self.own_host = own_host
        """The target names the host, not the client."""
        self._tokens = tokens
        self._edits = edits
        self._credential: list[bytes] = []
        self._credential_drops: Edits | None = None
        if credential is not None:
            name, value = credential.header.encode(), credential.value.get_secret_value().encode()
            self._credential = [b"%b: %b\r\n" % (name, value)]
            self._credential_drops = Edits(frozenset((b"authorization", dashed(name))), [])

    def lines(self, lines: list[bytes], *, credited: bool) -> list[bytes]:
        """A request's lines as they go upstream; `credited`: with the upstream's credential."""
        if self._tokens is not None:
            lines = self._tokens.without(lines)
        if self._credential_drops is not None:
            lines = self._credential_drops.kept(lines)
        if self._edits is not None:
            lines = [*self._edits.kept(lines), *self._edits.added]
        return [*lines, *self._credential] if credited else lines

    def trailers(self, lines: list[bytes]) -> list[bytes]:
        """What is removed of the head comes by no other way."""
        if self._tokens is not None:
            lines = self._tokens.without(lines)
        if self._credential_drops is not None:
            lines = self._credential_drops.kept(lines)
        return lines if self._edits is None else self._edits.kept(lines)
