"""`look`: reads whether a principal may use its organization, and for which version of the organization that holds.

The version is read first and access second, by two commands on one connection. So what was read of access is that of
the version or newer, and what is newer makes the next take STALE.
"""

from collections.abc import Sequence
from enum import Enum, auto
from typing import Any, Final, NamedTuple

from quota import keys
from quota.access import OF_ORGANIZATION, KeyRecord, Mark, key_field, refusing, unpack_record
from quota.calls.call import Call, Word
from quota.calls.encoded import command
from quota.calls.snapshots import version_of
from quota.wire import SHADOW

Words = tuple[Word, ...]


class Look(NamedTuple):
    """What is published of a principal."""

    version: int | None
    """Of the organization; None: Redis does not know it."""
    record: KeyRecord | None
    """Of its key; None: the organization has no such key, or the principal is none."""
    marks: dict[Mark, bytes]
    """Those that are set, of those that were asked for."""
    shadow: bool = False
    """What of its organization would be refused goes on."""

    def refused_by(self, issued_at: float | None) -> Mark | None:
        """The mark that refuses what was issued at that second."""
        return refusing(self.marks, issued_at)


LOOK_REPLIES: Final = 2


def look_words(
    org: str, digest: bytes | None, shards: int, marks: Sequence[Mark] = (OF_ORGANIZATION,)
) -> tuple[Words, Words]:
    """Two commands, which go over one connection in this order. `digest` is that of a key (`access.digest16`)."""
    fields = [mark.field for mark in marks]
    if digest is not None:
        fields.append(key_field(digest))
    return ("HMGET", keys.org_key(org, shards), "e", SHADOW), ("HMGET", keys.access_key(org, shards), *fields)


def look_bytes(org: str, digest: bytes | None, shards: int, marks: Sequence[Mark] = (OF_ORGANIZATION,)) -> bytes:
    """The same as RESP. LOOK_REPLIES replies follow."""
    return b"".join(command(*words) for words in look_words(org, digest, shards, marks))


def decode_look(
    published: Sequence[bytes | None],
    values: Sequence[bytes | None],
    digest: bytes | None,
    marks: Sequence[Mark] = (OF_ORGANIZATION,),
) -> Look:
    """The two replies; the other arguments are those of the call. Raises RecordMalformed."""
    found = {mark: value for mark, value in zip(marks, values, strict=False) if value is not None}
    head, shadow = published
    record = None if digest is None else values[len(marks)]
    version = None if head is None else version_of(head)
    return Look(version, None if record is None else unpack_record(record), found, shadow is not None)


# The organization of a key


class IndexMiss(Enum):
    """Why the index has no organization for a key."""

    NO_KEY = auto()
    """The index is complete: there is no such key."""
    INCOMPLETE = auto()
    """Redis has lost its memory, and the index has not been filled since. It says nothing of the key."""


def owner_words(digest: bytes, shards: int) -> Words:
    """One command that reads the organization of a key from the index."""
    shard = keys.shard_of_digest(digest, shards)
    names = keys.key_index_marker(shard), keys.generation_key(shard), keys.key_index_key(digest, shards)
    return "MGET", *names


def owner_bytes(digest: bytes, shards: int) -> bytes:
    """The same as RESP. One reply follows."""
    return command(*owner_words(digest, shards))


def decode_owner(reply: Sequence[bytes | None]) -> str | IndexMiss:
    """The organization, or why there is none."""
    marker, generation, org = reply
    if org is not None:
        return org.decode()
    return IndexMiss.NO_KEY if marker is not None and marker == generation else IndexMiss.INCOMPLETE


def mark_index_call(shard: int, generation: str) -> Call:
    """Says that the index of the shard is complete, while it has this generation. The reply is 1, or 0 where it has
    another."""
    return Call("mark_index", [keys.key_index_marker(shard), keys.generation_key(shard)], [generation])


def is_complete(marker: Any, generation: Any) -> bool:
    """Whether a shard's index of keys is complete."""
    return marker is not None and marker == generation
