"""The text of a usage event, as `lua/take.lua` and `lua/settle.lua` append it, and its value.

    t <request id> <path> <period start>[@<second>] <meter>:<units>[:<overage>[:<grant>=<units>,…]] …

`t` is a take, `s` a settlement, whose units are corrections and may be negative. A take's text is its receipt, too. The
path is the organization, with `/u:<user>` and `/k:<id of the API key>` where they are known (quota/access.py). The
second is that of the take, where it was charged to quotas of the principal's own.
"""

import re
from enum import StrEnum
from typing import NamedTuple

from quota.access import PATH_PATTERN, Path, check_path, decoded_user
from quota.keys import GRANT_PATTERN, METER_PATTERN
from quota.model import COST_MAX

FIELD = b"e"
"""The stream entry's only field."""
REPORTED = "usage-"
"""Begins the request id of usage that was reported (`POST /v1/usage`); a gateway's ids are hex digits."""

# The database has the same bounds, so every event that is parsed can be stored.
REQUEST_ID_PATTERN = r"[!-~]{1,200}"
_PERIOD_START = r"[0-9]{1,11}"
_UNITS = r"-?[0-9]{1,13}"
_HEAD = rf"([ts]) ({REQUEST_ID_PATTERN}) {PATH_PATTERN} ({_PERIOD_START})(?:@({_PERIOD_START}))?"
_PLAIN = re.compile(rf"{_HEAD} ({METER_PATTERN[1:-1]}):(-?[0-9]{{1,12}})\Z")
_EVENT = re.compile(rf"{_HEAD} ([ -~]+)\Z")
_CHARGE = re.compile(rf"({METER_PATTERN[1:-1]}):({_UNITS})(?::({_UNITS})(?::([!-~]+))?)?\Z")
_BURNT = re.compile(rf"({GRANT_PATTERN[1:-1]})=({_UNITS})\Z")


class EventMalformed(ValueError):
    """The text is not a usage event. The message says which part of it is wrong."""


class Kind(StrEnum):
    TAKE = "take"
    SETTLE = "settle"


_new = tuple.__new__  # a named tuple's own constructor takes three times as long
_KINDS = {"t": Kind.TAKE, "s": Kind.SETTLE}


class Charge(NamedTuple):
    meter: str
    units: int
    """Added to the meter's counter; negative when a settlement gives back."""
    overage: int = 0
    """The part of `units` that was sold beyond allowance and grants."""
    burnt: tuple[tuple[str, int], ...] = ()
    """The part of `units` that each grant paid for."""


class UsageEvent(NamedTuple):
    kind: Kind
    request_id: str
    org: str
    period_start: int
    """Seconds since the epoch: the period that the charges belong to."""
    charges: tuple[Charge, ...]
    user: str | None = None
    key: str | None = None
    """The id of the API key."""
    at: int | None = None
    """The second of the take, where it was charged to quotas of the principal's own."""

    @property
    def path(self) -> Path:
        return Path(self.org, self.user, self.key)


def parse(text: str) -> UsageEvent:
    """Raises EventMalformed."""
    # One match is enough for the common event, with one charge of the allowance: the writer parses 50,000 a second.
    match = _PLAIN.match(text)
    if match is not None:
        letter, request_id, org, user, key, start, at, meter, units = match.groups()
        charge = _new(Charge, (meter, int(units), 0, ()))
        user, second = user and _user(user), None if at is None else int(at)
        return _new(UsageEvent, (_KINDS[letter], request_id, org, int(start), (charge,), user, key, second))
    match = _EVENT.match(text)
    if match is None:
        raise EventMalformed(_fault(text))
    letter, request_id, org, user, key, start, at, charge_texts = match.groups()
    charges = tuple(_charge(text) for text in charge_texts.split(" "))
    if len({c.meter for c in charges}) != len(charges):
        raise EventMalformed("a meter is charged twice in one event")
    user, second = user and _user(user), None if at is None else int(at)
    return UsageEvent(_KINDS[letter], request_id, org, int(start), charges, user, key, second)


def _user(encoded: str) -> str:
    try:
        return decoded_user(encoded)
    except ValueError as e:
        raise EventMalformed(str(e)) from e


def _fault(text: str) -> str:
    words = text.split(" ")
    if len(words) < 5:
        return "an event must have a kind, a request id, a path, a period and at least one charge"
    letter, request_id, path, start, *_ = words
    if letter not in _KINDS:
        return f"the kind must be t or s: {letter!r}"
    if not re.fullmatch(REQUEST_ID_PATTERN, request_id):
        return f"the request id must be 1 to 200 printable ASCII characters: {request_id!r}"
    try:
        check_path(path)
    except ValueError as e:
        return str(e)
    if not re.fullmatch(rf"{_PERIOD_START}(?:@{_PERIOD_START})?", start):
        return f"the period's start must be whole seconds since the epoch: {start!r}"
    return "the charges must be printable ASCII"


def _charge(text: str) -> Charge:
    match = _CHARGE.match(text)
    if match is None:
        raise EventMalformed(f"a charge must be meter:units[:overage[:grant=units,…]]: {text!r}")
    meter, units_text, overage_text, burnt_text = match.groups()
    units, overage = int(units_text), int(overage_text or 0)
    if not -COST_MAX <= units <= COST_MAX or not -COST_MAX <= overage <= COST_MAX:
        raise EventMalformed(f"units must be from -{COST_MAX} to {COST_MAX}: {text!r}")
    return Charge(meter, units, overage, _burnt(burnt_text, text) if burnt_text else ())


def _burnt(text: str, charge: str) -> tuple[tuple[str, int], ...]:
    matches = [_BURNT.match(one) for one in text.split(",")]
    burnt = tuple((m[1], int(m[2])) for m in matches if m is not None)
    if len(burnt) != len(matches) or len({grant for grant, _ in burnt}) != len(burnt):
        raise EventMalformed(f"grants must be grant=units, each of them once: {charge!r}")
    return burnt
