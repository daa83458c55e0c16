"""Which server of a Cluster holds which slots, by the reply to CLUSTER SLOTS. Pure.

https://valkey.io/topics/cluster-spec/ "Key distribution model", https://valkey.io/commands/cluster-slots/
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, NamedTuple

from redis.crc import key_slot

from quota.ledger import UnsupportedServer

SLOTS: Final = 16384
_UNKNOWN: Final = ("", "?", None)


class Address(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Range(NamedTuple):
    """Slots that follow one another, and belong to one primary."""

    first: int
    last: int
    primary: Address


@dataclass(frozen=True, slots=True)
class Topology:
    ranges: tuple[Range, ...]
    replicas: tuple[Address, ...] = ()

    def owner(self, slot: int) -> Address | None:
        """None: no primary has this slot."""
        return next((each.primary for each in self.ranges if each.first <= slot <= each.last), None)

    @property
    def primaries(self) -> Sequence[Address]:
        """Those that hold slots, in the order of these."""
        return list(dict.fromkeys(each.primary for each in self.ranges))

    @property
    def uncovered(self) -> str | None:
        """That slots have no primary, and which; None: all have one."""
        missing = list(_gaps(self.ranges))
        if not missing:
            return None
        slots = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in missing[:5])
        more = f" and {len(missing) - 5} ranges more" if len(missing) > 5 else ""
        return f"the Redis Cluster does not cover all slots: no primary has {slots}{more}"

    def require_all_slots(self) -> None:
        """Raises UnsupportedServer where a slot has no primary."""
        if self.uncovered is not None:
            raise UnsupportedServer(self.uncovered)


class View(NamedTuple):
    """What one server knows."""

    topology: Topology
    epoch: int
    """Of the newest change that it knows of: https://valkey.io/topics/cluster-spec/ "Cluster current epoch"."""
    is_ok: bool
    """It reaches a majority of the primaries, and all slots are served."""
    slots_failed: int = 0
    """Their primary is held for failed by a majority, and no replica has taken over."""


class State(NamedTuple):
    """Of the reply to CLUSTER INFO."""

    epoch: int
    is_ok: bool
    slots_failed: int


def disagreement(views: Mapping[Address, View]) -> str | None:
    """In what the servers differ that say these: whose a slot is, or whether all slots are served; None: in nothing."""
    begins = {each.first for view in views.values() for each in view.topology.ranges}
    ends = {each.last + 1 for view in views.values() for each in view.topology.ranges}
    for slot in sorted(begins | ends | {0}):
        owners = defaultdict[Address | None, list[Address]](list)
        for address, view in views.items():
            owners[view.topology.owner(slot)].append(address)
        if len(owners) > 1:
            said = "; ".join(map(_said, owners.items()))
            return f"the servers of the Redis Cluster disagree whose slot {slot} is: {said}"
    cut_off = [str(address) for address, view in views.items() if not view.is_ok]
    if len(cut_off) in (0, len(views)):
        return None
    return f"of the servers of the Redis Cluster these alone say that it does not serve: {', '.join(cut_off)}"


def _said(owner: tuple[Address | None, Sequence[Address]]) -> str:
    named, by = owner
    return f"{', '.join(map(str, by))} {'names' if len(by) == 1 else 'name'} {named or 'nobody'}"


def newest(views: Iterable[View]) -> View:
    """The one that counts: it knows of the newest change. A server that was cut off still names itself."""
    return max(views, key=lambda view: (view.is_ok, view.epoch))


def unserved(views: Mapping[Address, View]) -> str | None:
    """That slots are not served, and why, by what the servers say that answer; None: all are."""
    if not views:
        return None
    view = newest(views.values())
    if view.topology.uncovered is not None:
        return view.topology.uncovered
    if view.slots_failed:
        silent = [str(address) for address in view.topology.primaries if address not in views]
        whose = f"{', '.join(silent)} does not answer" if silent else "the others do not reach it"
        failed = f"{view.slots_failed} slots of the Redis Cluster have a primary that has failed ({whose})"
        return f"{failed}, and no replica has taken over"
    if view.is_ok:
        return None
    return "no server of the Redis Cluster serves: each says that it reaches no majority, or that a slot is not covered"


def state_of(info: Any) -> State:
    text = info.decode() if isinstance(info, bytes) else str(info)
    fields = dict(line.split(":", 1) for line in text.split("\r\n") if ":" in line)
    return State(
        epoch=int(fields.get("cluster_current_epoch", 0)),
        is_ok=fields.get("cluster_state") == "ok",
        slots_failed=int(fields.get("cluster_slots_fail", 0)),
    )


def parse(reply: Sequence[Sequence[Any]], asked: Address) -> Topology:
    """The reply to CLUSTER SLOTS of the server `asked`, which may leave its own host out. Raises UnsupportedServer."""
    ranges, replicas = list[Range](), dict[Address, None]()
    for first, last, primary, *others in reply:
        if (address := _address(primary, asked)) is not None:
            ranges.append(Range(int(first), int(last), address))
        replicas |= {each: None for node in others if (each := _address(node, asked)) is not None}
    ranges.sort()
    for one, other in pairwise(ranges):
        if other.first <= one.last:
            raise UnsupportedServer(
                f"the Redis Cluster names two primaries for slot {other.first}: {one.primary} and {other.primary}"
            )
    return Topology(tuple(ranges), tuple(replicas))


def slot_of(key: bytes | str) -> int:
    return int(key_slot(key if isinstance(key, bytes) else key.encode()))


def _address(node: Sequence[Any], asked: Address) -> Address | None:
    host = node[0].decode() if isinstance(node[0], bytes) else node[0]
    if host == "?":  # a node that does not know its name yet
        return None
    return Address(asked.host if host in _UNKNOWN else str(host), int(node[1]))


def _gaps(ranges: Iterable[Range]) -> Iterator[tuple[int, int]]:
    expected = 0
    for first, last, _ in ranges:
        if first > expected:
            yield expected, first - 1
        expected = last + 1
    if expected < SLOTS:
        yield expected, SLOTS - 1
