"""A token is verified once until it expires or its key goes, and what is remembered is bounded."""

from collections.abc import Callable
from typing import Any

from identity.keysets.jwk import Key
from identity.refusals import Reason
from identity.tokens import TokenVerifier
from tests.identity.minting import NOW, SECRET, Clock, auth, bearer, payload, refusal, token


class Counting:
    """Keys that count how often a signature was about to be checked."""

    def __init__(self) -> None:
        self.asked = 0

    due, usable = False, True

    def find(self, kid: str | None) -> tuple[Key, ...]:
        self.asked += 1
        return (Key("secret", None, frozenset({"HS256"}), SECRET.encode()),)

    def on_removed(self, callback: Callable[[Any], None]) -> None:
        self.forget = callback


def test_a_token_is_verified_once_until_it_expires() -> None:
    clock, keys = Clock(), Counting()
    checker = TokenVerifier(auth(leeway_seconds=5), {"issuer": keys}, clock)
    signed = bearer(token(payload(exp=NOW + 60)))
    for _ in range(3):
        checker.verify_field(signed)
    clock.now = NOW + 64.9
    checker.verify_field(signed)
    assert keys.asked == 1
    clock.now = NOW + 65
    assert refusal(checker, signed) == Reason.EXPIRED


def test_a_refused_token_is_not_remembered_as_good() -> None:
    clock, keys = Clock(), Counting()
    checker = TokenVerifier(auth(), {"issuer": keys}, clock)
    early = bearer(token(payload(nbf=NOW + 30)))
    assert refusal(checker, early) == Reason.NOT_YET_VALID
    clock.now = NOW + 30
    assert checker.verify_field(early).org == "acme"


def test_the_cache_is_bounded_and_keeps_what_is_in_use() -> None:
    keys = Counting()
    checker = TokenVerifier(auth(cache_entries_max=8), {"issuer": keys}, lambda: NOW)
    busy = bearer(token())
    for number in range(50):
        checker.verify_field(bearer(token(payload(sub=str(number)))))
        checker.verify_field(busy)
    assert len(checker._young) + len(checker._old) <= 8
    assert keys.asked == 51


def test_tokens_of_a_removed_key_are_examined_again() -> None:
    keys = Counting()
    checker = TokenVerifier(auth(), {"issuer": keys}, lambda: NOW)
    checker.verify_field(bearer(token()))
    keys.forget({"another key"})
    checker.verify_field(bearer(token()))
    assert keys.asked == 1
    keys.forget({"secret"})
    checker.verify_field(bearer(token()))
    assert keys.asked == 2
