"""`replay`: charges, later and once, a request that was forwarded without a take."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from quota import keys
from quota.calls.call import Call, Word, books_of, check_path, check_request_id
from quota.calls.take import charge_argv
from quota.wire import REPLAYED_SECONDS, ReplayOutcome


class Replayed(NamedTuple):
    outcome: ReplayOutcome
    receipt: bytes = b""
    """Of the charge, made now or before; empty: nothing is charged, now or later."""


def replay_call(path: str, request_id: str, charges: Mapping[str, int], shards: int) -> Call:
    """Charges also beyond the limit, since the units were used. Without charges the request was not served, and will
    never be charged. `path`: an organization, or a principal within it.

    Raises ValueError for what cannot be an event."""
    org = check_path(path)
    check_request_id(request_id)
    pairs = charge_argv(charges)[1:] if charges else []
    argv: list[Word] = [request_id, path, REPLAYED_SECONDS, *pairs]
    return Call("replay", [*books_of(org, shards), keys.replayed_key(org, shards, request_id)], argv)


def decode_replayed(reply: Sequence[Any]) -> Replayed:
    return Replayed(ReplayOutcome(reply[0]), *reply[1:])
