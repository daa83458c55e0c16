"""What gateways do to a ledger, by the calls that they send: for tests that have no gateway."""

from collections.abc import Mapping, Sequence

from redis.exceptions import ResponseError

from quota.calls.corrections import decode_settlement, settle_call
from quota.calls.permits import release_words, renew_call
from quota.calls.replay import decode_replayed, replay_call
from quota.calls.take import Take, decode_take, take_call
from quota.ledger import Ledger, LedgerUnavailable
from quota.model import Decision, Settlement
from quota.wire import ReplayOutcome


async def take(
    ledger: Ledger,
    org: str,
    request_id: str,
    charges: Mapping[str, int],
    idempotency: str | None = None,
    path: str | None = None,
    version: str = "",
) -> Decision:
    one = Take(org, request_id, charges, idempotency, path=path, version=version)
    [reply] = await ledger.run(take_call([one], ledger.shards))
    if isinstance(reply, ResponseError):
        raise LedgerUnavailable(str(reply)) from reply
    return decode_take(reply, list(charges))


async def settle(
    ledger: Ledger, org: str, receipt: bytes, actual: Mapping[str, int], refunds_max: int | None = None
) -> Settlement:
    call = settle_call(org, receipt, ledger.shards, actual, refunds_max=refunds_max)
    return decode_settlement(await ledger.run(call))


async def release(ledger: Ledger, org: str, request_id: str) -> bool:
    """Whether the request had a permit."""
    return bool(await ledger.redis.execute_command(*release_words(org, request_id, ledger.shards)))


async def renew(ledger: Ledger, org: str, request_ids: Sequence[str]) -> None:
    await ledger.run(renew_call(org, request_ids, ledger.shards))


async def replay(ledger: Ledger, path: str, request_id: str, charges: Mapping[str, int]) -> ReplayOutcome:
    return decode_replayed(await ledger.run(replay_call(path, request_id, charges, ledger.shards))).outcome
