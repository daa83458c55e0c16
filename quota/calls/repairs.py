"""Calls that repair counters, or that recover a Redis that lost its memory."""

from collections.abc import Mapping, Sequence

from quota import keys
from quota.calls.call import Call, Word, books_of
from quota.generation import REBUILDING


def rebase_call(org: str, generation: str, repairs: int, moves: Mapping[str, int], shards: int) -> Call:
    """Adds to counters, unless somebody else has repaired or rebuilt the organization since they were read.

    `moves`: field of the hash -> units. The reply is 1, or 0 where nothing changed."""
    script_keys = [keys.org_key(org, shards), keys.generation_key(keys.shard_of(org, shards))]
    return Call("rebase", script_keys, [generation, repairs, *_flat(moves)])


def append_call(
    org: str, events: Sequence[str], moves: Mapping[str, int], shards: int, generation: str | None = None
) -> Call:
    """Puts lost events back. `moves`: field of the hash -> what the events add to it. With `generation`, only while the
    shard has that one; else the reply is MEMORY_LOST."""
    script_keys, argv = books_of(org, shards), [len(events), *events, *_flat(moves)]
    if generation is None:
        return Call("append", script_keys, argv)
    return Call("append", [*script_keys, keys.generation_key(keys.shard_of(org, shards))], [*argv, generation])


def advance_call(shard: int, watermark: str, generation: str | None = None) -> Call:
    """Makes the shard's stream continue after the watermark. The reply is the last id that it had before, or empty.
    With `generation`, only while the shard has that one; else the reply is MEMORY_LOST."""
    if generation is None:
        return Call("advance", [keys.events_key(shard)], [watermark])
    return Call("advance", [keys.events_key(shard), keys.generation_key(shard)], [watermark, generation])


def pop_receipts_call(at_most: int, shards: int) -> Call:
    """Takes receipts that gateways sent without being asked. The reply is empty during a recovery."""
    generations = [keys.generation_key(shard) for shard in range(shards)]
    return Call("pop_receipts", [keys.RECEIPTS, *generations], [at_most, REBUILDING, 0])


def pop_receipts_of_cluster_call(at_most: int) -> Call:
    """The same, where generations lie in other slots: the key RECEIPTS_ASKED is there during a recovery."""
    return Call("pop_receipts", [keys.RECEIPTS, keys.RECEIPTS_ASKED], [at_most, REBUILDING, 1])


def _flat(moves: Mapping[str, int]) -> list[Word]:
    return [part for pair in moves.items() for part in pair]
