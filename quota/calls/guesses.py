"""Tries to guess a secret, counted for all processes together: `guess`."""

from typing import Any

from quota import keys
from quota.calls.call import Call


def guess_call(kind: str, name: str, now_ms: int, *, tries: int, each_ms: int, adds: bool) -> Call:
    """Asks, and with `adds` puts a try into the bucket where it has room. `name`: of an address, or of a secret by
    what does not tell it."""
    return Call("guess", [keys.guesses_key(kind, name)], [now_ms, tries, each_ms, int(adds)])


def decode_guess(reply: Any) -> int:
    """For how many ms there is no room for a try."""
    return int(reply)
