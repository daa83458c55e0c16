"""Where a request carries its token, and what of the request goes upstream without it. Pure.

RFC 6750 section 2 lets a client carry its token in one way at a time: of two, which one counts is not for us to choose,
so none does. Browsers send a cookie whether the page wants it or not, so it counts only where nothing else carries one.
"""

import re
from typing import Final, Self
from urllib.parse import unquote_to_bytes

from gateway.http.head import RequestHead
from gateway.settings.rewriting import TokenSources, dashed
from identity.bearer import TOKEN_BYTES_MAX, bearer_token
from identity.refusals import Reason, TokenRefused

_COOKIE: Final = b"cookie"
_SUBPROTOCOLS: Final = b"sec-websocket-protocol"
_BEARER: Final = re.compile(rb"\Abearer +", re.IGNORECASE)
_UNFIT: Final = re.compile(rb"[^!-+\--~]")  # of a token: blanks, commas, controls


class Sources:
    """The ways that a route allows."""

    __slots__ = ("_authorization", "_cookie", "_subprotocol", "header", "query")

    def __init__(self, settings: TokenSources) -> None:
        self._authorization = settings.authorization
        self.header = None if settings.header is None else settings.header.lower().encode()
        self._cookie = _bytes(settings.cookie)
        self.query = _bytes(getattr(settings, "query", None))
        self._subprotocol = _bytes(getattr(settings, "subprotocol", None))

    @classmethod
    def of(cls, settings: TokenSources) -> Self | None:
        """None for the usual way alone, by Authorization."""
        sources = cls(settings)
        more = (sources.header, sources._cookie, sources.query, sources._subprotocol)
        return None if sources._authorization and not any(more) else sources

    def token(self, head: RequestHead, queried: tuple[bytes, ...]) -> bytes:
        """The one token; `queried` are those of the query. Raises TokenRefused."""
        if head.carried is None or head.carried_by is not self:
            head.carried, head.carried_by = self._carried(head), self
        carried, cookies = head.carried
        carried = self._authorized(head) + carried + queried
        if not (carried or cookies):
            raise TokenRefused(Reason.MISSING)
        token, *others = carried or cookies
        if others or not token or _UNFIT.search(token) or len(token) > TOKEN_BYTES_MAX:
            raise TokenRefused(Reason.INVALID_REQUEST)
        return token

    def _authorized(self, head: RequestHead) -> tuple[bytes, ...]:
        if not self._authorization:
            return ()
        try:
            return (bearer_token(head.authorization),)
        except TokenRefused as e:
            if e.reason is Reason.MISSING:
                return ()
            raise

    def _carried(self, head: RequestHead) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        """By fields of their own, and by cookies."""
        carried: list[bytes] = []
        cookies: list[bytes] = []
        offered: list[bytes] = []
        for line in head.fields:
            name, _, value = line.partition(b":")
            name = name.lower()
            if name == self.header:
                carried.append(_BEARER.sub(b"", value.strip(), count=1))
            elif name == _COOKIE and self._cookie is not None:
                cookies += [token for pair in value.split(b";") if (token := self._in_cookie(pair)) is not None]
            elif name == _SUBPROTOCOLS:
                offered += _entries(value)
        if self._subprotocol is not None:
            carried += self._split(offered)[0]
        return tuple(carried), tuple(cookies)

    def _in_cookie(self, pair: bytes) -> bytes | None:
        name, _, value = pair.partition(b"=")
        return value.strip().strip(b'"') if name.strip() == self._cookie else None

    def _split(self, offered: list[bytes]) -> tuple[list[bytes], list[bytes]]:
        """Tokens among the subprotocols, and the others. A mark with nothing behind it is an empty token."""
        tokens: list[bytes] = []
        others: list[bytes] = []
        entries = iter(offered)
        for entry in entries:
            if entry == self._subprotocol:
                tokens.append(next(entries, b""))
            else:
                others.append(entry)
        return tokens, others

    # What goes on

    def without(self, lines: list[bytes]) -> list[bytes]:
        """Header lines without tokens. The others keep their order and spelling."""
        kept: list[bytes] = []
        offered: list[bytes] = []
        for line in lines:
            name, _, value = line.partition(b":")
            lower = name.lower()
            if self.header is not None and dashed(lower) == dashed(self.header):
                continue
            if self._subprotocol is not None and lower == _SUBPROTOCOLS:
                offered.append(value)
            elif self._cookie is not None and lower == _COOKIE:
                pairs = value.strip().split(b";")
                others = [pair for pair in pairs if self._in_cookie(pair) is None]
                if len(others) == len(pairs):
                    kept.append(line)
                elif others:
                    kept.append(b"%b: %b\r\n" % (name, b";".join(others).strip()))
            else:
                kept.append(line)
        if offered and (others := self._split(_entries(b",".join(offered)))[1]):
            kept.append(b"Sec-WebSocket-Protocol: %b\r\n" % b", ".join(others))
        return kept

    def chosen(self, head: RequestHead, answer: bytes) -> bytes:
        """The line that a 101 needs when the upstream chose none of the subprotocols, and the token's mark was among
        those that the client offered: browsers give a connection up that answers none of them."""
        if self._subprotocol is None or any(
            line.lower().startswith(_SUBPROTOCOLS + b":") for line in answer.splitlines()
        ):
            return b""
        offered = [
            entry for line in head.fields if _is(line, _SUBPROTOCOLS) for entry in _entries(line.partition(b":")[2])
        ]
        marked = bool(self._split(offered)[0])
        return b"Sec-WebSocket-Protocol: %b\r\n" % self._subprotocol if marked else b""

    def told_to_proxies(self, head: RequestHead) -> bytes:
        """Lines for a proxy that forwards itself: what it should send under the names that may have held a token."""
        lines = b""
        for field, name in ((b"X-Quota-Cookie", _COOKIE), (b"X-Quota-Subprotocols", _SUBPROTOCOLS)):
            mine = [line for line in head.fields if _is(line, name)]
            if (self._cookie if name == _COOKIE else self._subprotocol) is not None and mine:
                values = [line.partition(b":")[2].strip() for line in self.without(mine)]
                if values:
                    lines += b"%b: %b\r\n" % (field, (b"; " if name == _COOKIE else b", ").join(values))
        return lines


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def _is(line: bytes, name: bytes) -> bool:
    return line.partition(b":")[0].lower() == name


def _entries(value: bytes) -> list[bytes]:
    return [entry for part in value.split(b",") if (entry := part.strip())]


def split_query(query: bytes, name: bytes) -> tuple[tuple[bytes, ...], bytes | None]:
    """The values of a parameter, and the query without it, None for nothing left. The others keep their order and
    spelling. Some take `;` for `&`: what only they would read is an empty value, which is no token."""
    values: list[bytes] = []
    others: list[bytes] = []
    for pair in query.split(b"&"):
        if (value := _parameter(pair, name)) is not None and b";" not in pair:
            values.append(value)
        elif any(_parameter(part, name) is not None for part in pair.split(b";")):
            values.append(b"")
        else:
            others.append(pair)
    if not values:
        return (), query
    return tuple(values), b"&".join(others) or None


def _parameter(pair: bytes, name: bytes) -> bytes | None:
    spelt, _, value = pair.partition(b"=")
    if unquote_to_bytes(spelt.replace(b"+", b" ")) != name:
        return None
    return unquote_to_bytes(value.replace(b"+", b" "))
