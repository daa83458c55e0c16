"""Slots of a Cluster move under load: what clients notice of it, and whether anything is lost or given away.

Each primary in turn hands half of its slots to the next one, by Valkey's own migration, and gets them back. Two
gateways and two control planes run on it, as they are by default, and clients keep books as in a soak. A take of a
shard that moves waits until the control plane vouches for the shard at its new place, at most `redis.timeout_ms`, and
is answered 503 then (docs/operations.md, "A Cluster"). So no call fails while each move stays within that budget; one
that fails has met a move that took longer, or a server that owed a reply for longer than `redis.budget_ms`, as where
the machine has no time left: how often gateways said so stands beside it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final

import uvloop

from bench.busyness import idle_share, machine_times
from bench.faults.cluster import PRIMARIES, ClusterInstallation
from bench.faults.striking import PROBE
from bench.open_loop.pacing import quantile
from bench.report import Bars, Goal, table
from bench.restarts.rolling import Step, taken
from bench.soak.audit import Findings, counted, findings
from bench.soak.traffic import Traffic
from common.redis_cluster.topology import slot_of
from devstack.valkey_cluster import SLOTS
from gateway.settings.redis import Redis
from quota import keys
from quota.keys import SHARDS_DEFAULT

SHARES: Final = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "longest": 1.0}
"""Of latencies."""
BUDGET_MS: Final = int(Redis.model_fields["timeout_ms"].default)
STEP_SECONDS: Final = 3.0
"""From the begin of a move to that of the next one, at least."""
SLOW: Final = "redis is slow"
"""In a gateway's log: Redis owes a reply for longer than `redis.budget_ms`."""
CALM_SECONDS: Final = 3.0  # before the first move, and after the last one


@dataclass(frozen=True, slots=True)
class Move:
    """Slots that one primary hands to another, by their numbers."""

    source: int
    target: int
    first: int
    last: int

    @property
    def back(self) -> "Move":
        return Move(self.target, self.source, self.first, self.last)

    @property
    def shards(self) -> int:
        """How many lie in these slots."""
        slots = (slot_of(keys.generation_key(shard)) for shard in range(SHARDS_DEFAULT))
        return sum(self.first <= slot <= self.last for slot in slots)

    def __str__(self) -> str:
        return f"slots {self.first} to {self.last} from node-{self.source} to node-{self.target}"


@dataclass(frozen=True)
class Moved:
    steps: Sequence[Step]
    """One for each move."""
    failed: int
    """Calls, from before the first move until each has its answer."""
    slow: int
    """How often a gateway said that Redis was slow."""
    shards: int
    """That have moved, summed over all moves."""
    statuses: Mapping[str, int]
    """Calls by status; of failures also what the answer says."""
    latencies: Sequence[float]
    """Seconds from when an admitted call was due to the end of its answer, ascending."""
    found: Findings
    idle: float | None
    """Of the machine's time."""

    @property
    def calls(self) -> int:
        return sum(self.statuses.values())

    def milliseconds(self, share: float) -> float:
        return quantile(self.latencies, share) * 1000

    def raw(self) -> dict[str, Any]:
        times = {name: self.milliseconds(share) for name, share in SHARES.items()}
        return {
            "steps": [asdict(step) for step in self.steps],
            "failed": self.failed,
            "slow": self.slow,
            "shards": self.shards,
            "statuses": dict(self.statuses),
            "latency_ms": times,
            "found": asdict(self.found),
            "idle": self.idle,
        }


def planned(times: int) -> list[Move]:
    """There and back, so many times."""
    moves = []
    for number in range(times):
        source = number % PRIMARIES
        first, end = SLOTS * source // PRIMARIES, SLOTS * (source + 1) // PRIMARIES
        there = Move(source, (source + 1) % PRIMARIES, first, (first + end) // 2 - 1)
        moves += [there, there.back]
    return moves


async def run(at: ClusterInstallation, moves: Sequence[Move], rate: float) -> Moved:
    traffic = Traffic([part.port for part in at.gateways], [part.port for part in at.controls], rate)
    await traffic.prepare()
    times, loop = machine_times(), asyncio.get_running_loop()
    traffic.start()
    await asyncio.sleep(CALM_SECONDS)
    steps = []
    for move in moves:
        moving = partial(asyncio.to_thread, at.servers.move, move.source, move.target, move.first, move.last)
        steps.append(await taken(str(move), traffic.books, loop.time() + STEP_SECONDS, moving))
    await asyncio.sleep(CALM_SECONDS)
    idle = idle_share(times, machine_times())
    await traffic.stop()
    found = findings(traffic.books, await counted(at, traffic.books))
    statuses = {str(status): count for status, count in traffic.books.statuses.most_common()}
    slow, shards = sum(part.logged(SLOW) for part in at.gateways), sum(move.shards for move in moves)
    return Moved(steps, traffic.books.failed, slow, shards, statuses, sorted(traffic.books.latencies), found, idle)


def measured(times: int, rate: float) -> Moved:
    with (
        ClusterInstallation("memory", PROBE) as at,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(run(at, planned(times), rate))


def goals(moved: Moved) -> list[Goal]:
    failed = Goal(f"calls that failed while slots moved (budget {BUDGET_MS} ms)", moved.failed, 0)
    return [failed, *moved.found.goals()]


def tables(moved: Moved) -> list[str]:
    longest = max(step.seconds for step in moved.steps)
    row = [f"{len(moved.steps)}", f"{moved.shards}", f"{longest:.2f} s", f"{moved.calls:,}", f"{moved.failed:,}"]
    waits = [f"{moved.milliseconds(share):.1f}" for share in SHARES.values()]
    head = ["moves of half a primary's slots", "shards moved", "longest move", "calls", "failed"]
    said = ", ".join(f"{status}: {count:,}" for status, count in moved.statuses.items())
    idle = "" if moved.idle is None else f" {moved.idle:.0%} of the machine's time was idle."
    slow = f"Gateways said {moved.slow} times that Redis was slow."
    return [
        table([*head, *(f"{name}, ms" for name in SHARES)], [[*row, *waits]]),
        f"Answers by status: {said}. A take of a shard that moves waits at most {BUDGET_MS} ms. {slow}{idle}",
    ]


def bars(moved: Moved) -> Bars:
    times = {name: moved.milliseconds(share) for name, share in SHARES.items()}
    return Bars("while slots moved: from when a call was due to its answer, ms", times)
