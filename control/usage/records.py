"""Reads the body of `POST /v1/usage` into records, each on its own: an invalid one does not affect the others. Pure."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Annotated, Any

from pydantic import Field, ValidationError

from control.documents import Body, Moment, Whole
from control.entitlements.plans import Meter
from quota.model import COST_MAX

RECORDS_MAX = 1000
FIELDS_MAX = 16  # of one record: no message lists thousands that are unknown
NAME_CHARACTERS_MAX = 64  # of a field's name in a message
DIGITS_MAX = 20  # more are no units, and reading thousands takes long

_DIGEST_BYTES = 8


class UsageRecord(Body):
    """Units of one meter that were used."""

    meter: Meter
    units: Annotated[int, Whole, Field(strict=True, ge=1, le=COST_MAX)]
    idempotency_key: Annotated[str, Field(pattern=r"^[!-~]{1,255}$")]
    """Your name for this record. Within 24 hours, the same record with the same key is charged once, and gets the same
    answer as the first time. Another record with the same key is refused (409)."""
    timestamp: Moment | None = None
    """When the units were used. It must be in the current period, and at most a minute ahead. It is checked and not
    stored: a record counts at the moment it is admitted."""

    @property
    def digest(self) -> str:
        """What tells another record under the same key. Of the values, so that another spelling of JSON is the same."""
        at = "" if self.timestamp is None else f"{self.timestamp.timestamp():.6f}"
        return blake2b(f"{self.meter} {self.units} {at}".encode(), digest_size=_DIGEST_BYTES).hexdigest()


@dataclass(frozen=True, slots=True)
class Invalid:
    """A record that is not valid."""

    errors: tuple[tuple[str, str], ...]
    """Field of the record, or '' for all of it, and what is wrong there."""
    idempotency_key: str | None = None
    """As it was given, if it is a good one."""


class BodyUnreadable(ValueError):
    """The body is not JSON, or neither a record nor a list of records. The message is for the client."""


def read(body: bytes) -> tuple[bool, Sequence[UsageRecord | Invalid]]:
    """Whether the body is a list, and its records. Raises BodyUnreadable."""
    try:
        content = json.loads(
            body.decode(), object_pairs_hook=_unambiguous, parse_int=_bounded, parse_constant=_not_json
        )
    except UnicodeDecodeError as e:
        raise BodyUnreadable("The body is not UTF-8.") from e
    except (ValueError, RecursionError) as e:
        raise BodyUnreadable("The body is not JSON.") from e
    if isinstance(content, list):
        if not 1 <= len(content) <= RECORDS_MAX:
            raise BodyUnreadable(f"A list must have 1 to {RECORDS_MAX} records, not {len(content)}.")
        return True, [_record(each) for each in content]
    if not isinstance(content, dict | _Twice):
        raise BodyUnreadable("The body must be a record, or a list of records.")
    return False, [_record(content)]


@dataclass(frozen=True, slots=True)
class _Twice:
    """An object that gives a field twice: which of the two is meant, nobody knows (RFC 8259 section 4)."""

    name: str


def _record(content: Any) -> UsageRecord | Invalid:
    if isinstance(content, _Twice):
        return Invalid(((_shown(content.name), "is given twice"),))
    if not isinstance(content, dict):
        return Invalid((("", "must be an object"),))
    if len(content) > FIELDS_MAX:
        return Invalid((("", "has too many fields"),))
    try:
        return UsageRecord.model_validate(content)
    except ValidationError as e:
        faults = e.errors(include_url=False, include_context=False, include_input=False)
    errors = tuple((_shown(".".join(map(str, fault["loc"]))), fault["msg"]) for fault in faults)
    key = None if any(field == "idempotency_key" for field, _ in errors) else content["idempotency_key"]
    return Invalid(errors, key)


def _shown(name: str) -> str:
    # JSON can escape what is no Unicode (half a surrogate pair), and no answer could hold that.
    return name[:NAME_CHARACTERS_MAX].encode("ascii", "backslashreplace").decode()


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Twice:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    times = Counter(name for name, _ in pairs)
    return _Twice(times.most_common(1)[0][0])


def _bounded(digits: str) -> int | float:
    return int(digits) if len(digits) <= DIGITS_MAX else float("inf")


def _not_json(constant: str) -> Any:
    raise ValueError(f"JSON has no {constant}")
