"""Permits of requests under way: `renew`, and the command that frees one."""

from collections.abc import Sequence

from quota import keys
from quota.calls.call import Call, Word
from quota.wire import PERMIT_SECONDS


def release_words(org: str, request_id: bytes | str, shards: int) -> tuple[Word, ...]:
    """A command of Redis itself: frees the permit of a request that has ended. The reply is 0 where it has none."""
    return ("ZREM", keys.permits_key(org, shards), request_id)


def renew_call(org: str, request_ids: Sequence[bytes | str], shards: int) -> Call:
    """Holds the permits of requests that are still under way for another PERMIT_SECONDS."""
    return Call("renew", [keys.permits_key(org, shards)], [PERMIT_SECONDS, *request_ids])
