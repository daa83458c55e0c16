"""The numbers and binary layouts that Python and the Lua scripts share. Each is defined here and nowhere else.

A script names those that it needs in its lines `--@constants …` (quota/scripts.py); lua/README.md explains them.
"""

from enum import Enum, IntEnum
from struct import Struct
from typing import Final

from quota.keys import PERMITS_SUFFIX
from quota.model import COST_MAX, Status


class Verdict(IntEnum):
    """The first byte of each reply of `take`."""

    ADMITTED = 1
    EXHAUSTED = 2
    RATE_LIMITED = 3
    NOT_ENTITLED = 4
    NOT_IN_PLAN = 5
    UNKNOWN = 6
    CONCURRENCY_LIMITED = 7
    ADMITTED_WITH_MORE = 8
    """Admitted, and the next byte holds one or both of More."""
    STALE = 9
    """Another version is published than the take said."""


class More(IntEnum):
    """Bits of the second byte of an ADMITTED_WITH_MORE."""

    REPLAYED = 1  # not charged: another request with its idempotency key was
    PERMIT = 2  # it holds a permit until it is released


class Mark(Enum):
    """Precedes the number of meters of a take that has a third key, for its idempotency key."""

    KEYED = "k"
    REPORTED = "u"  # usage that is reported: no rate limit applies, and it needs no permit


NODE_LETTERS: Final = "kut"
"""Begins a node of a path, `k:<id>`: the number of its Level is the letter's position, from 1."""
LEVEL_FACTOR: Final = 2
"""The detail of EXHAUSTED: 1 where the cost is above the whole limit, and the level times this."""


class SettleOutcome(IntEnum):
    """The first word of a reply of `settle`. Only APPLIED has changed a counter."""

    SETTLED_BEFORE = 0
    APPLIED = 1
    KEPT_FOR_OTHERS = 2  # other requests with the idempotency key may have been served
    REFUNDS_SPENT = 3  # the period has had its maximum of refunds; the receipt can be settled in another way


class ReplayOutcome(IntEnum):
    """The first word of a reply of `replay`."""

    UNPUBLISHED = -1  # nothing changed: try again later
    REPLAYED_BEFORE = 0
    CHARGED = 1


class PublishOutcome(IntEnum):
    """The first word of a reply of `publish`. `seed` answers MEMORY_LOST likewise."""

    MEMORY_LOST = -1
    NOT_NEWER = 0
    INSTALLED = 1
    BEHIND = 2  # what is installed is older than the version that the changes of access begin at


SHADOW: Final = "shadow"
"""The field of an organization's hash that is there while nothing of it is refused. Takes do not read it."""
HEAD: Final = Struct("<dBBdddddd")
"""A published entitlement: version, status, policy, rate interval us, rate burst us, two periods (start s, end s)."""
LEASE: Final = Struct("<IH")
"""Follows the head in a region: when it asked for its lease, by its own clock, and for how many seconds that is in
force."""
CONCURRENT_MAX: Final = Struct("<I")
"""Follows these where the number of requests under way is limited."""
_TWO_NUMBERS = Struct("<dd")
LIMIT: Final = _TWO_NUMBERS
"""A published meter: allowance, units of overage (0: none, -1: without a cap)."""
PERIODS: Final = Struct("<dddd")
"""The end of HEAD: two periods (start s, end s)."""
ELSEWHERE: Final = Struct("<ddddd")
"""Follows it in a region, where LIMIT is what the region holds: units by which the organization's limit is higher; what
of these no region had charged when the lease was made; units by which its cap of overage is higher; units that its home
could have given the region then; those of them that are no overage."""

REPLY: Final = Struct("<BBdddd")
"""Of `take`: verdict, number of the meter from 1 (or More, or Level), now us, period start s, period end s, detail."""
BALANCE: Final = Struct("<ddd")
"""Follows it for each meter of an admission, and for the meter that was exhausted: limit, remaining, overage."""
RATE: Final = _TWO_NUMBERS
"""Follows it where the rate limit refused: microseconds between two requests, and of a burst."""


def _joined(*layouts: Struct) -> Struct:
    """Layouts that follow each other without padding."""
    return Struct("<" + "".join(layout.format.removeprefix("<") for layout in layouts))


REPLY_WITH_BALANCE: Final = _joined(REPLY, BALANCE)
ONE_METER_CHANGING: Final = Struct("<2x d 32x d 8x")
"""Of REPLY_WITH_BALANCE, what differs from one admission to the next: now us, and remaining."""
LASTING_BEGIN: Final = 10
LASTING_END: Final = 42
"""And what does not: the bytes of period, detail and limit."""
REPLY_WITH_RATE: Final = _joined(REPLY, RATE)

MORE_ELSEWHERE: Final = 64
"""Is added to the detail of a refusal for want of units, where a region's home may have some."""
OVERAGE_ASKS_SECONDS: Final = 15
"""A region asks before it sells overage while its home has allowance or grants; with a lease that is older than that
nobody seems to answer."""
ANSWER_SECONDS: Final = 2
"""For so long a region believes what its home said of the units that are free: then it is asked again."""
PERMIT_SECONDS: Final = 60  # `take` holds a permit for so long; who is under way for longer renews it
IDEMPOTENCY_SECONDS: Final = 86_400  # of all requests of a day with one idempotency key, one is charged
SETTLED_SECONDS: Final = 86_400  # a settlement that is repeated within a day is recognised
REPLAYED_SECONDS: Final = 7 * 86_400  # a journal that is replayed again within a week is recognised

LAYOUTS: Final = {
    "HEAD": HEAD,
    "LEASE": LEASE,
    "CONCURRENT_MAX": CONCURRENT_MAX,
    "LIMIT": LIMIT,
    "ELSEWHERE": ELSEWHERE,
    "REPLY": REPLY,
    "BALANCE": BALANCE,
    "REPLY_WITH_BALANCE": REPLY_WITH_BALANCE,
    "REPLY_WITH_RATE": REPLY_WITH_RATE,
}
CONSTANTS: Final[dict[str, int | str]] = {
    **{verdict.name: verdict.value for verdict in Verdict},
    **{f"MORE_{more.name}": more.value for more in More},
    **{f"MARK_{mark.name}": mark.value for mark in Mark},
    **{f"MARK_{mark.name}_ONE_METER": f"{mark.value}1" for mark in Mark},
    **{outcome.name: outcome.value for outcome in (*SettleOutcome, *ReplayOutcome, *PublishOutcome)},
    # Lua's struct library needs the size of an integer.
    **{name: layout.format.replace("I", "I4").replace("H", "I2") for name, layout in LAYOUTS.items()},
    "HEAD_BYTES": HEAD.size,
    "HEAD_LEASED_BYTES": HEAD.size + LEASE.size,
    "LEASE_BEGINS": HEAD.size - PERIODS.size,
    "LIMIT_BYTES": LIMIT.size,
    "MORE_ELSEWHERE": MORE_ELSEWHERE,
    "ANSWER_SECONDS": ANSWER_SECONDS,
    "OVERAGE_ASKS_SECONDS": OVERAGE_ASKS_SECONDS,
    "SHADOW": SHADOW,
    "STATUS_SERVED_FIRST": min(status for status in Status if status.served).value,
    "STATUS_SERVED_LAST": max(status for status in Status if status.served).value,
    "COST_MAX": COST_MAX,
    "PERMIT_SECONDS": PERMIT_SECONDS,
    "PERMITS_SUFFIX": PERMITS_SUFFIX,
    "NODE_LETTERS": NODE_LETTERS,
    "LEVEL_FACTOR": LEVEL_FACTOR,
    "IDEMPOTENCY_SECONDS": IDEMPOTENCY_SECONDS,
}
"""What a script can ask for, by the name that it has there."""
