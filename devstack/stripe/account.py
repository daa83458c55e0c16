"""One Stripe account: its objects, its clock, what is due on it, and the events that tell of it."""

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
    """Wall time, moved ahead (or started elsewhere); it stands at each moment that it passes while it moves."""

    def __init__(self, offset_seconds: int = 0) -> None:
        self.offset_seconds = offset_seconds
        self.standing: int | None = None
        self.own_offset_seconds: int | None = None
        """While somebody has borrowed the calendar: where it stood before, and goes back to."""

    def now(self) -> int:
        return self.standing if self.standing is not None else int(time.time()) + self.offset_seconds

    @property
    def is_borrowed(self) -> bool:
        return self.own_offset_seconds is not None

    def earliest(self) -> int:
        """Now; of a calendar that is borrowed, by what it says to all others."""
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
    """What happens to an object and changes others that are made of it, or for it."""

    CUSTOMER_DELETED = "customer deleted"
    INVOICE_PAID = "invoice paid"
    PAYMENT_FAILED = "payment of an invoice failed"
    INVOICE_OVERDUE = "invoice overdue"
    PERIOD_RENEWED = "period of a subscription renewed"


Consequence = Callable[["Account", Object], None]
CONSEQUENCES: dict[Occurrence, Consequence] = {}


def consequence(of: Occurrence) -> Callable[[Consequence], Consequence]:
    """Registers what follows for other objects. So an invoice knows no subscription, and a subscription no schedule."""

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
        """By id: what Stripe knows of an object and does not show."""
        self.settings: Object = {"after_retries": "unpaid"}
        """What the dashboard would set: unpaid or cancel, when all retries of a payment failed."""
        self.listeners: list[Callable[[Object], None]] = []
        self.changed = False
        self._timers: list[tuple[int, int, str, str]] = []
        self._held: list[tuple[int, int, str, str]] = []
        """What was due of others when the calendar was borrowed: it is not for them that time passes."""
        self._order = count(1)

    # Objects

    def new_id(self, prefix: str) -> str:
        return f"{prefix}_{''.join(secrets.choice(_ALPHABET) for _ in range(24))}"

    def add(self, obj: Object) -> Object:
        self.objects.setdefault(obj["object"], {})[obj["id"]] = obj
        self.changed = True
        return obj

    def get(self, kind: str, object_id: str) -> Object:
        found = self.objects.get(kind, {}).get(object_id)
        if found is None:
            raise RequestRefused(f"No such {kind}: '{object_id}'", status=404, code="resource_missing", param="id")
        self.changed = True
        return found

    def find(self, kind: str, **equal: Any) -> Iterator[Object]:
        """The newest first, as Stripe lists them."""
        for each in reversed(list(self.objects.get(kind, {}).values())):
            if all(each.get(name) == value for name, value in equal.items() if value is not None):
                yield each

    def by_id(self, object_id: str) -> Object | None:
        return next((kind[object_id] for kind in self.objects.values() if object_id in kind), None)

    def note(self, object_id: str) -> Object:
        self.changed = True
        return self.notes.setdefault(object_id, {})

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
        for tell in self.listeners:
            tell(event)

    def follow_up(self, occurrence: Occurrence, obj: Object) -> None:
        CONSEQUENCES[occurrence](self, obj)

    # Time

    def at(self, due: int, name: str, object_id: str) -> None:
        heapq.heappush(self._timers, (due, next(self._order), name, object_id))
        self.changed = True

    def run_due(self) -> None:
        """Does what has become due, with the clock standing at each one's time."""
        self.advance_to(self.clock.now())

    def advance_to(self, moment: int) -> None:
        while self._timers and self._timers[0][0] <= moment:
            due, _, name, object_id = heapq.heappop(self._timers)
            self.clock.standing = max(due, 0)
            try:
                TIMERS[name](self, object_id)
            finally:
                self.clock.standing = None
        self.clock.offset_seconds += max(0, moment - self.clock.now())

    def borrow_calendar(self) -> None:
        """From now on time passes only for what is made from now on, beginning today, until it is given back: a test
        clock, of which an account like this one has one at a time. Who was killed with it has given it back by this."""
        self.give_calendar_back()
        self.clock.own_offset_seconds, self.clock.offset_seconds = self.clock.offset_seconds, 0
        self._held, self._timers = self._timers, []
        self.changed = True

    def give_calendar_back(self) -> None:
        """Nothing where nobody has borrowed it."""
        if self.clock.own_offset_seconds is None:
            return
        self.clock.offset_seconds, self.clock.own_offset_seconds = self.clock.own_offset_seconds, None
        self._timers, self._held = [*self._timers, *self._held], []
        heapq.heapify(self._timers)
        self.changed = True

    # Files

    def save(self, file: Path) -> None:
        content = {
            # A run's end gives a borrowed calendar back.
            "offset_seconds": self.clock.own_offset_seconds if self.clock.is_borrowed else self.clock.offset_seconds,
            "objects": self.objects,
            "notes": self.notes,
            "settings": self.settings,
            "timers": sorted([*self._timers, *self._held]),
        }
        part = file.with_suffix(".part")
        part.write_text(json.dumps(content))
        part.chmod(0o600)
        part.replace(file)
        self.changed = False

    def load(self, file: Path) -> None:
        """What a run before this one saved; nothing where there was none."""
        if not file.exists():
            return
        content = json.loads(file.read_text())
        self.clock.offset_seconds = content["offset_seconds"]
        self.objects, self.notes = content["objects"], content["notes"]
        self.settings.update({name: value for name, value in content["settings"].items() if name != "url"})
        self._timers = [(due, order, name, object_id) for due, order, name, object_id in content["timers"]]
        self._order = count(max((order for _, order, _, _ in self._timers), default=0) + 1)
