"""The intervals of a worker that no operator sets. Tests give others."""

from dataclasses import dataclass
from typing import Final

from common.backoff import Backoff
from gateway.http.deadlines import TICK_SECONDS
from quota.routes import TOLD_SECONDS
from quota.wire import PERMIT_SECONDS

REDIS_AGAIN: Final = Backoff(first_seconds=0.05, max_seconds=1.0)
JOURNAL_AGAIN: Final = Backoff(first_seconds=1.0, max_seconds=60.0)


@dataclass(frozen=True, slots=True)
class Intervals:
    # The worker
    tick_seconds: float = TICK_SECONDS
    """Between two sweeps over all deadlines."""
    start_seconds: float = 2.0
    """A worker that starts waits so long for Redis before it takes connections."""
    start_answer_seconds: float = 6.0
    """It waits for so much longer while the control plane is asked whether this Redis is the one to believe."""
    settle_seconds: float = 5.0
    """A worker that stops waits so long for corrections to be confirmed."""

    # Clients' connections
    client_stall_seconds: float = 60.0
    """A client that takes nothing of its answer for so long is cut."""
    client_linger_seconds: float = 2.0
    """A refused sender that sends no more has so long to read why, before it is reset."""
    client_linger_seconds_max: float = 30.0
    """One that goes on sending has so long; what it sends is dropped."""
    client_idle_drain_seconds: float = 0.25
    """A connection that is idle has so long for a request that is on its way to a worker that should take no more."""

    # The link to Redis
    redis_again: Backoff = REDIS_AGAIN
    """Between two attempts to connect to Redis, and between two questions whether a Redis that refused takes again."""
    link_look_seconds: float = 1.0
    """Between two questions of `/-/ready` whether Redis would take."""
    vouching_answer_seconds: float = 3.0
    """A control plane that does not answer for so long is taken to be away."""
    level_look_seconds: float = 0.25
    """Between two questions whether Redis keeps the durability level again."""

    # What is remembered of takes
    receipts_look_seconds: float = 1.0
    """Between two looks at how far the writer is."""
    receipts_seconds: float = 10.0
    """Receipts are kept for at least so long, and no longer where no writer tells how far it is."""
    receipts_anew_ms: int = 10_000
    """After another server was vouched for: what was put back there counts as written after so long."""

    permit_renew_seconds: float = PERMIT_SECONDS / 3
    """Between two renewals of the permits of requests under way: two may be lost."""
    exhausted_seconds: float = 1.0
    """The refusal of an organization that is exhausted is repeated from memory for at most so long."""
    refusals_seconds: float = 1.0
    """Refusals are kept and counted for so long, then sent."""
    upstream_faults_seconds: float = 1.0
    """Targets that are left out are told of so often."""
    check_times_seconds: float = 60.0
    """How long takes took goes to Redis so often."""
    routes_seconds: float = TOLD_SECONDS
    """Routes and their prices are told to Redis so often."""
    access_log_close_seconds: float = 2.0
    """A worker that stops waits so long for a disk that takes no lines."""

    # Upstreams
    distrust_seconds: float = 60.0
    """For so long no connection is used again to a target that says more than its answers."""

    # Outages
    journal_look_seconds: float = 0.5
    """Between two looks at whether the journal has something to sync, to hand over or to replay."""
    journal_again: Backoff = JOURNAL_AGAIN
    """Between two attempts to replay entries that are kept."""


DEFAULT_INTERVALS: Final = Intervals()
