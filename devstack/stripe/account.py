"""One Stripe account: its objects, its clock, what is due on it, and the events that announce its changes."""

import heapq
import json
import secrets
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from enum import Enum
from itertools import count
from pathlib import Path
from typing import Any

Object = dict[str, Any]

API_VERSION = "2026-10-28.endive"  # of the pinned SDK

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def unused(names: str) -> Object:
    """Fields that are always there, and null in this account."""
    return dict.fromkeys(names.split())


class RequestRefused(Exception):
    """Stripe's answer to a request that it does not grant."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.code = code
        self.param = param


def card_declined() -> RequestRefused:
    return RequestRefused("Your card was declined.", status=402, kind="card_error", code="card_declined")


def unsupported(message: str, param: str) -> RequestRefused:
    """For what Stripe grants and this double does not: it refuses rather than answers otherwise than Stripe."""
    return RequestRefused(message, code="parameter_not_in_stand_in", param=param)


class Clock:
    """Wall time, moved ahead by an offset. While it is moved, it stops at each moment at which something is due."""

    def __init__(self, offset_seconds: int = 0) -> None:
        self.offset_seconds = offset_seconds
        self.stopped_at: int | None = None
        self.own_offset_seconds: int | None = None
        """While somebody borrows the calendar: the offset of everybody else, which is in force again afterwards."""

    def now(self) -> int:
        return self.stopped_at if self.stopped_at is not None else int(time.time()) + self.offset_seconds

    @property
    def is_borrowed(self) -> bool:
        return self.own_offset_seconds is not None

    def earliest(self) -> int:
        """Now; while the calendar is borrowed, the earlier one of the borrower's now and of everybody else's."""
        own = self.now() if self.own_offset_seconds is None else int(time.time()) + self.own_offset_seconds
        return min(self.now(), own)


Timer = Callable[["Account", str], None]
TIMERS: dict[str, Timer] = {}


def timer(name: str) -> Callable[[Timer], Timer]:
    """Registers what is done for one object when its time has come."""

    def register(function: Timer) -> Timer:
        TIMERS[name] = function
        return function

    return register


class Occurrence(Enum):
    """What happens to one object and has consequences for others."""

    CUSTOMER_DELETED = "customer deleted"
    INVOICE_PAID = "invoice paid"
    PAYMENT_FAILED = "payment of an invoice failed"
    INVOICE_OVERDUE = "invoice overdue"
    PERIOD_RENEWED = "period of a subscription renewed"


Consequence = Callable[["Account", Object], None]
CONSEQUENCES: dict[Occurrence, Consequence] = {}


def consequence(of: Occurrence) -> Callable[[Consequence], Consequence]:
    """Registers what follows for other objects, so that an invoice knows no subscription and a subscription no
    schedule."""

    def register(function: Consequence) -> Consequence:
        CONSEQUENCES[of] = function
        return function

    return register


class Account:
    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.objects: dict[str, dict[str, Object]] = {}
        """By kind, then id: as the API shows them, in the order of their creation."""
        self.notes: dict[str, Object] = {}
        """By id: what Stripe knows about an object and does not show."""
        self.settings: Object = {"after_retries": "unpaid"}
        """What is set in Stripe's dashboard. `after_retries`: what happens to a subscription when all retries of a
        payment have failed (unpaid, cancel)."""
        self.listeners: list[Callable[[Object], None]] = []
        self.choose: Callable[[str], str] = secrets.choice
        """Chooses the characters of new ids."""
        self.changed = False
        self._timers: list[tuple[int, int, str, str]] = []
        self._suspended_timers: list[tuple[int, int, str, str]] = []
        """The timers of everybody else while the calendar is borrowed: for them no time passes."""
        self._order = count(1)

    # Objects

    def new_id(self, prefix: str) -> str:
        return f"{prefix}_{''.join(self.choose(_ALPHABET) for _ in range(24))}"

    def add(self, obj: Object) -> Object:
        self.objects.setdefault(obj["object"], {})[obj["id"]] = obj
        self.changed = True
        return obj

    def get(self, kind: str, object_id: str) -> Object:
        """Raises RequestRefused where there is none."""
        obj = self.objects.get(kind, {}).get(object_id)
        if obj is None:
            raise RequestRefused(f"No such {kind}: '{object_id}'", status=404, code="resource_missing", param="id")
        self.changed = True
        return obj

    def find(self, kind: str, **equal: Any) -> Iterator[Object]:
        """Objects with these values, of which None is any; the newest first, as Stripe lists them."""
        for obj in reversed(list(self.objects.get(kind, {}).values())):
            if all(obj.get(name) == value for name, value in equal.items() if value is not None):
                yield obj

    def by_id(self, object_id: str) -> Object | None:
        return next((kind[object_id] for kind in self.objects.values() if object_id in kind), None)

    def note(self, object_id: str) -> Object:
        self.changed = True
        return self.notes.setdefault(object_id, {})

    def copy_for(self, customer: str) -> "Account":
        """A copy to try something with: what this customer has, and what belongs to nobody. Nobody listens to it."""
        copy = Account(Clock(self.clock.offset_seconds))
        copy.settings, copy.notes = deepcopy(self.settings), deepcopy(self.notes)
        kept = {
            kind: {id_: each for id_, each in objects.items() if each.get("customer", customer) in (None, customer)}
            for kind, objects in self.objects.items()
            if kind != "event"
        }
        copy.objects = deepcopy(kept)
        return copy

    # Events

    def emit(self, type_: str, obj: Object, previous: Object | None = None) -> None:
        data: Object = {"object": deepcopy(obj)}
        if previous is not None:
            data["previous_attributes"] = deepcopy(previous)
        event = self.add(
            {
                "id": self.new_id("evt"),
                "object": "event",
                "api_version": API_VERSION,
                "created": self.clock.now(),
                "data": data,
                "livemode": False,
                "pending_webhooks": 0,
                "request": {"id": None, "idempotency_key": None},
                "type": type_,
            }
        )
        for listener in self.listeners:
            listener(event)

    def follow_up(self, occurrence: Occurrence, obj: Object) -> None:
        CONSEQUENCES[occurrence](self, obj)

    # Time

    @property
    def next_due(self) -> int | None:
        """When something is due next; None where nothing is."""
        return self._timers[0][0] if self._timers else None

    def at(self, due: int, name: str, object_id: str) -> None:
        heapq.heappush(self._timers, (due, next(self._order), name, object_id))
        self.changed = True

    def run_due(self) -> None:
        """Does what has become due, with the clock stopped at the moment at which each was due."""
        self.advance_to(self.clock.now())

    def advance_to(self, moment: int) -> None:
        """Moves the clock ahead, and does what is due until then."""
        while self._timers and self._timers[0][0] <= moment:
            due, _, name, object_id = heapq.heappop(self._timers)
            self.clock.stopped_at = max(due, 0)
            try:
                TIMERS[name](self, object_id)
            finally:
                self.clock.stopped_at = None
        self.clock.offset_seconds += max(0, moment - self.clock.now())

    def borrow_calendar(self) -> None:
        """Until the calendar is given back, time passes only for objects that are made meanwhile, beginning today.

        It is like a test clock of Stripe's, of which this account has one at a time. A borrower that is killed does not
        give the calendar back; the next one takes it over."""
        self.give_calendar_back()
        self.clock.own_offset_seconds, self.clock.offset_seconds = self.clock.offset_seconds, 0
        self._suspended_timers, self._timers = self._timers, []
        self.changed = True

    def give_calendar_back(self) -> None:
        """Does nothing where nobody has borrowed it."""
        if self.clock.own_offset_seconds is None:
            return
        self.clock.offset_seconds, self.clock.own_offset_seconds = self.clock.own_offset_seconds, None
        self._timers, self._suspended_timers = [*self._timers, *self._suspended_timers], []
        heapq.heapify(self._timers)
        self.changed = True

    # Files

    def save(self, file: Path) -> None:
        content = {
            # The end of a run gives a borrowed calendar back.
            "offset_seconds": self.clock.own_offset_seconds if self.clock.is_borrowed else self.clock.offset_seconds,
            "objects": self.objects,
            "notes": self.notes,
            "settings": self.settings,
            "timers": sorted([*self._timers, *self._suspended_timers]),
        }
        part = file.with_suffix(".part")
        part.write_text(json.dumps(content))
        part.chmod(0o600)
        part.replace(file)
        self.changed = False

    def load(self, file: Path) -> None:
        """Restores what an earlier run saved; nothing where there was none."""
        if not file.exists():
            return
        content = json.loads(file.read_text())
        self.clock.offset_seconds = content["offset_seconds"]
        self.objects, self.notes = content["objects"], content["notes"]
        self.settings.update({name: value for name, value in content["settings"].items() if name != "url"})
        self._timers = [(due, order, name, object_id) for due, order, name, object_id in content["timers"]]
        self._order = count(max((order for _, order, _, _ in self._timers), default=0) + 1)
