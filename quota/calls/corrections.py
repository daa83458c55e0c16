"""`settle`, `seek` and `withdraw`: they correct a charge, also where the reply to its take was lost."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from quota import keys
from quota.calls.call import Call, Word, books_of
from quota.model import Settlement
from quota.wire import SETTLED_SECONDS, SettleOutcome


class Attempt(NamedTuple):
    """A request with an idempotency key. The charge may belong to another request with that key."""

    idempotency: str
    request_id: str


def settle_call(
    org: str,
    receipt: bytes,
    shards: int,
    units: Mapping[str, int] | None = None,
    *,
    refunds_max: int | None = None,
    attempt: Attempt | None = None,
) -> Call:
    """Sets a charge to the units that were really used, once for each receipt; without `units`, gives all of it back.

    With `refunds_max` it is a refund: it is counted, and refused when the receipt's period has had that many. With
    `attempt` it is done only if no other request of the idempotency key is open.
    Raises ValueError for a text that is not a receipt."""
    words = receipt.decode().split(" ")
    if len(words) < 3:
        raise ValueError(f"not a receipt: {receipt!r}")
    if units is None:
        units = {charge.partition(":")[0]: 0 for charge in words[4:]}
    script_keys = [*books_of(org, shards), keys.settled_key(org, shards, words[1])]
    argv: list[Word] = [receipt, SETTLED_SECONDS, "" if refunds_max is None else refunds_max]
    for pair in units.items():
        argv += pair
    if attempt is not None:
        script_keys.append(keys.idempotency_key(org, shards, attempt.idempotency))
        argv.append(attempt.request_id)
    return Call("settle", script_keys, argv)


def decode_settlement(reply: Sequence[Any]) -> Settlement:
    outcome, *changes = reply
    units, shortfall = {}, {}
    for meter, added, short in zip(changes[::3], changes[1::3], changes[2::3], strict=True):
        units[meter.decode()] = added
        if short:
            shortfall[meter.decode()] = short
    return Settlement(outcome == SettleOutcome.APPLIED, units, shortfall, capped=outcome == SettleOutcome.REFUNDS_SPENT)


def seek_call(shard: int, from_ms: int, request_ids: Sequence[bytes]) -> Call:
    """Looks for takes whose replies were lost, in the events of one shard since `from_ms`, Redis time."""
    return Call("seek", [keys.events_key(shard)], [from_ms, *request_ids])


def decode_sought(reply: Sequence[bytes]) -> dict[bytes, bytes]:
    """Request id -> receipt, for the requests that were charged."""
    return {receipt.split(b" ", 2)[1]: receipt for receipt in reply}


def withdraw_call(org: str, request_id: bytes, idempotency: str, shards: int) -> Call:
    """Removes a request from the open requests of its key: its reply was lost, and it was not charged itself.

    The reply is the receipt to give back, where the request was the last open one of its key; else None."""
    return Call("withdraw", [keys.idempotency_key(org, shards, idempotency)], [request_id])
