"""Slots of requests under way: `renew`, and the command that frees one."""

from collections.abc import Sequence

from quota import keys
from quota.calls.call import Call, Word
from quota.wire import SLOT_SECONDS


def release_words(org: str, request_id: bytes | str, shards: int) -> tuple[Word, ...]:
    """A command of Redis itself: frees the slot of a request that has ended. The reply is 0 where it has none."""
    return ("ZREM", keys.slots_key(org, shards), request_id)


def renew_call(org: str, request_ids: Sequence[bytes | str], shards: int) -> Call:
    """Holds the slots of requests that are still under way for another SLOT_SECONDS."""
    return Call("renew", [keys.slots_key(org, shards)], [SLOT_SECONDS, *request_ids])
