"""What gateways tell of their routes: which there are, what a request of each costs, and whom it lets in.

It is for those who ask what would become of a request. Each worker writes one field of the hash `qg:routes` when it
starts and once a minute: the digest of its routes -> `<second of its start> <second of writing>`, LF, the routes as
JSON. So gateways with the same routes share a field. Nothing of it is a secret: no address, no field that is set.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

BYTES_MAX: Final = 262_144
"""Of the JSON text: some thousand routes. Longer ones are not told."""
TOLD_SECONDS: Final = 60
CURRENT_SECONDS: Final = 3 * TOLD_SECONDS
"""What was told longer ago is of no gateway that runs."""
KEPT_SECONDS: Final = 86_400
"""What was told longer ago is forgotten."""
_FORM: Final = 2
_FORM_OF_PLAIN: Final = 1
"""Lines without what came with the second form. Who reads only that still understands most routes."""


class RoutesMalformed(ValueError):
    """The text tells no routes. The message says which part of it is wrong."""


class TellsCost(StrEnum):
    """Who says how many units a request costs."""

    NOBODY = "nobody"
    """It is a fixed number."""
    HEADER = "header"
    QUERY = "query"
    ANSWER = "answer"
    """The upstream's answer, which corrects what was charged before."""


class Price(NamedTuple):
    """What a request costs of one meter."""

    units: int
    """Charged where nobody tells otherwise."""
    told_by: TellsCost = TellsCost.NOBODY
    name: str = ""
    """Of the request's field or parameter."""
    least: int = 0
    most: int = 0
    """Of what the request may tell."""


class TunnelUnit(StrEnum):
    MESSAGE = "message"
    """Of a WebSocket client."""
    MEBIBYTE = "mebibyte"
    """Each begun one, of both directions."""


class Tunnel(NamedTuple):
    """What an upgraded connection costs beyond its opening."""

    per: TunnelUnit
    charges: Mapping[str, int]
    """Of one, by meter."""


class Route(NamedTuple):
    name: str
    host: str | None
    methods: tuple[str, ...] | None
    """None: any. GET includes HEAD."""
    path: str
    """Whole segments from the start of the path."""
    prices: Mapping[str, Price]
    """By meter, in the order of a charge."""
    exempt: bool = False
    shadow: bool = False
    scopes: tuple[str, ...] = ()
    """All of them are asked of a token."""
    roles: tuple[str, ...] = ()
    """Any of them is."""
    keys: bool = True
    """Whether API keys are let in. Where scopes or roles are asked for, only those that name the route."""
    upgrades: tuple[str, ...] = ()
    """Protocols that a GET may switch to."""
    tunnel: Tunnel | None = None
    encoded_slash: bool = False
    """`%2F` is a character of the path."""
    merge_slashes: bool = True
    bared: str | None = ""
    """What is taken from the start of a path; None: something else comes in its place."""

    @property
    def charges(self) -> dict[str, int]:
        """What a request is charged that tells nothing."""
        return {meter: price.units for meter, price in self.prices.items()}

    @property
    def requires(self) -> bool:
        return bool(self.scopes or self.roles)


@dataclass(frozen=True, slots=True)
class Routes:
    """Those of one gateway."""

    routes: tuple[Route, ...]
    environments: tuple[str, ...] = ()
    """Whose API keys are accepted; none: no keys are."""
    shadow_organizations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """A field of the hash."""

    digest: str
    started_s: int
    """Of the worker that wrote last."""
    seen_s: int
    routes: Routes = field(repr=False)

    def is_current(self, now_s: float) -> bool:
        return now_s - self.seen_s <= CURRENT_SECONDS


def encode(routes: Routes) -> bytes:
    lines = [_written(each) for each in routes.routes]
    form = _FORM if any(len(line) > _PLAIN_LENGTH for line in lines) else _FORM_OF_PLAIN
    document = [form, routes.environments, routes.shadow_organizations, lines]
    return json.dumps(document, separators=(",", ":")).encode()


def digest_of(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:16]


def value_of(text: bytes, started_s: int, seen_s: int) -> bytes:
    """Of the hash's field; `text` is what `encode` made."""
    return b"%d %d\n%b" % (started_s, seen_s, text)


def seen_at(value: bytes) -> int:
    """When a value was written. Raises RoutesMalformed."""
    try:
        return int(value.partition(b"\n")[0].split(b" ")[1])
    except (ValueError, IndexError) as e:
        raise RoutesMalformed("it does not say when it was written") from e


def decode(digest: bytes, value: bytes) -> Told:
    """A field and its value. Raises RoutesMalformed."""
    times, _, text = value.partition(b"\n")
    try:
        started, seen = times.split(b" ")
        form, environments, shadowed, routes = json.loads(text)
        if form not in (_FORM_OF_PLAIN, _FORM):
            raise RoutesMalformed(f"it has the form {form}, which is newer than this version")
        read = Routes(tuple(map(_read, routes)), _texts(environments), _texts(shadowed))
        return Told(digest.decode("ascii"), int(started), int(seen), read)
    except RoutesMalformed:
        raise
    except (ValueError, TypeError, AttributeError) as e:
        raise RoutesMalformed(f"it tells no routes: {e}") from e


_PLAIN_LENGTH: Final = Route._fields.index("upgrades")


def _written(route: Route) -> list[Any]:
    prices = {meter: price.units if price == Price(price.units) else price for meter, price in route.prices.items()}
    line: list[Any] = [*route._replace(prices=prices)]  # type: ignore[arg-type]  # as it is written: a fixed price is its number
    beyond = Route(route.name, route.host, route.methods, route.path, route.prices)[_PLAIN_LENGTH:]
    return line[:_PLAIN_LENGTH] if tuple(line[_PLAIN_LENGTH:]) == beyond else line


def _read(line: Any) -> Route:
    name, host, methods, path, prices, exempt, shadow, scopes, roles, keys = line[:_PLAIN_LENGTH]
    plain = Route(
        _text(name),
        None if host is None else _text(host),
        None if methods is None else _texts(methods),
        _text(path),
        {_text(meter): _price(price) for meter, price in prices.items()},
        _flag(exempt),
        _flag(shadow),
        _texts(scopes),
        _texts(roles),
        _flag(keys),
    )
    if len(line) == _PLAIN_LENGTH:
        return plain
    upgrades, tunnel, encoded_slash, merge_slashes, bared = line[_PLAIN_LENGTH:]
    return plain._replace(
        upgrades=_texts(upgrades),
        tunnel=None if tunnel is None else _tunnel(tunnel),
        encoded_slash=_flag(encoded_slash),
        merge_slashes=_flag(merge_slashes),
        bared=None if bared is None else _text(bared),
    )


def _tunnel(written: Any) -> Tunnel:
    per, charges = written
    return Tunnel(TunnelUnit(per), {_text(meter): _number(units) for meter, units in charges.items()})


def _price(written: Any) -> Price:
    if isinstance(written, int):
        return Price(_number(written))
    units, told_by, name, least, most = written
    return Price(_number(units), TellsCost(told_by), _text(name), _number(least), _number(most))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise RoutesMalformed(f"a text is {value!r}")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise RoutesMalformed(f"a list is {value!r}")
    return tuple(map(_text, value))


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise RoutesMalformed(f"a number is {value!r}")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise RoutesMalformed(f"a flag is {value!r}")
    return value
