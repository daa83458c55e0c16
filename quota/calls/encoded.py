"""Calls as RESP, and `take` in parts that are made once and joined for each request.

The parts of a take joined are the bytes of `command` of the same call (tests/quota/test_encoded_takes.py). The gateway
makes the parts of an organization and of a route once, since a million requests share them.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from quota import keys
from quota.calls.call import Call, Word, books_of
from quota.calls.take import charge_argv
from quota.scripts import script
from quota.wire import Mark

TAKES_MAX = 64  # in one script call: Redis serves nobody else for about a millisecond
BOOKS_KEYS, IDEMPOTENT_KEYS = 2, 3  # keys of a take, and of one that has an idempotency key
REQUEST_ID_BYTES = 20
TAKE_WORDS = 3
TAKE_ARGV: Final = b"$%d\r\n%%b\r\n%%b%%b" % REQUEST_ID_BYTES
"""ARGV of a take: format of its request id, `principal_bulk`, and its charges' words."""


def bulk(*words: Word) -> bytes:
    """Words as RESP bulk strings, without the array head: parts that are made once and joined often."""
    parts = []
    for word in words:
        data = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def command(*words: Word) -> bytes:
    return b"*%d\r\n%b" % (len(words), bulk(*words))


def by_digest(call: Call) -> bytes:
    """The call as EVALSHA."""
    return command("EVALSHA", script(call.script).sha, len(call.keys), *call.keys, *call.argv)


def by_text(call: Call) -> bytes:
    """The call as EVAL, for a Redis that does not know the script."""
    return command("EVAL", script(call.script).source, len(call.keys), *call.keys, *call.argv)


TAKE_BY_DIGEST: Final = bulk("EVALSHA", script("take").sha)
TAKE_BY_TEXT: Final = bulk("EVAL", script("take").source)
_KEY_COUNTS: Final = [bulk(count) for count in range(IDEMPOTENT_KEYS * TAKES_MAX + 1)]


def books_bulk(org: str, shards: int) -> bytes:
    """KEYS of a take that has no idempotency key."""
    return bulk(*books_of(org, shards))


def principal_bulk(path: str, version_word: str = "") -> bytes:
    """The words of a take that say who is charged (`access.Path`), and what is known of it (`access.version_word`)."""
    return bulk(path, version_word)


def idempotency_bulk(org: str, shards: int, name: str) -> bytes:
    """The key that follows these for a take with an idempotency key."""
    return bulk(keys.idempotency_key(org, shards, name))


class EncodedCharges(NamedTuple):
    bulk: bytes
    """Number of meters, then meter and cost of each."""
    argv_count: int
    """The number of words in ARGV for the whole take: request id, path, version word, and those of `bulk`."""


def encode_charges(charges: Mapping[str, int]) -> EncodedCharges:
    """Raises ValueError as `charge_argv` does."""
    argv = charge_argv(charges)
    return EncodedCharges(bulk(*argv), TAKE_WORDS + len(argv))


def keyed(charge_bulk: bytes) -> bytes:
    """The same charges, for a take with an idempotency key."""
    _, number, charges = charge_bulk.split(b"\r\n", 2)
    return b"$%d\r\n%b%b\r\n%b" % (len(number) + 1, _MARK_KEYED, number, charges)


_MARK_KEYED: Final = Mark.KEYED.value.encode()


class Batch(NamedTuple):
    """Takes of one script call."""

    words: int
    arguments: bytes
    """Number of keys, KEYS, ARGV."""

    def by_digest(self) -> bytes:
        return b"*%d\r\n%b%b" % (self.words, TAKE_BY_DIGEST, self.arguments)

    def by_text(self) -> bytes:
        return b"*%d\r\n%b%b" % (self.words, TAKE_BY_TEXT, self.arguments)


def join_takes(keys_bulks: Sequence[bytes], key_count: int, argv_bulks: Sequence[bytes], argv_count: int) -> Batch:
    """Joins at most TAKES_MAX takes. The counts are sums over all of them."""
    arguments = b"%b%b%b" % (_KEY_COUNTS[key_count], b"".join(keys_bulks), b"".join(argv_bulks))
    return Batch(3 + key_count + argv_count, arguments)


def take_by_digest(keys_bulk: bytes, key_count: int, argv_bulk: bytes, argv_count: int) -> bytes:
    """A script call of one take alone, as EVALSHA."""
    words = 3 + key_count + argv_count
    return b"*%d\r\n%b%b%b%b" % (words, TAKE_BY_DIGEST, _KEY_COUNTS[key_count], keys_bulk, argv_bulk)
