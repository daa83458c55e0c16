"""An issuer that is away, silent or answers nonsense leaves the known keys in service."""

import gzip
import itertools
import zlib

import httpx
import pytest
import structlog

from identity.keysets.fetch import fetch
from identity.keysets.jwk import KeySetUnavailable
from identity.keysets.keyset import RETRY_SECONDS, KeySet
from identity.keysets.source import BODY_BYTES_MAX
from identity.settings import IssuerSettings
from tests.identity.keysets.issuing import (
    ACCEPTED,
    NEW_KEY,
    OLD_KEY,
    Issuer,
    Time,
    key_set,
    public,
    settings,
    signed,
    verifier_with,
)


@pytest.mark.parametrize("url", ["https://[v1.a]/keys", "https://127.0.0.1/\x7f", "https://xn--/keys"])
async def test_an_address_that_no_client_can_ask_is_told_and_does_not_end_the_start(url: str) -> None:
    settings = IssuerSettings(algorithms=ACCEPTED, jwks=url, issuer="issuer")
    keys = KeySet.of(settings)
    assert await keys.refresh() is False
    await keys.close()


async def test_a_key_set_that_cannot_be_read_is_named_in_the_log_without_its_query(issuer: Issuer, time: Time) -> None:
    issuer.status = 500
    with structlog.testing.capture_logs() as logs:
        keys = KeySet.of(settings(f"{issuer.url}?key=secret"), time.clock, time.sleep)
        await keys.start()
        await keys.close()
    [error] = [entry for entry in logs if entry["log_level"] == "error"]
    assert (error["source"], error["reason"]) == (issuer.url, "its address answered 500")
    assert "secret" not in str(logs)


@pytest.mark.parametrize(
    ("status", "fields", "body"),
    [
        (500, {}, b"oops"),
        (404, {}, b""),
        (301, {"location": "/elsewhere"}, b""),
        (307, {"location": "file:///etc/passwd"}, b""),
        (200, {}, b" " * (BODY_BYTES_MAX + 1)),
        (200, {"content-length": "9999999999"}, b" " * (BODY_BYTES_MAX + 1)),
        (200, {}, b"<html>"),
        (200, {}, b"[]"),
        (200, {}, b"{}"),
        (200, {}, b'{"keys": {}}'),
        (200, {}, b'{"keys": []}'),
        (200, {}, b'{"keys": [{"kty": "oct", "k": "AAAA", "kid": "old"}]}'),
        (200, {}, b"[" * 100_000),
        (200, {"content-encoding": "gzip"}, b"\x1f\x8b junk"),
        (200, {"content-encoding": "gzip"}, gzip.compress(key_set(public(NEW_KEY, "new")))[:-9]),
        (200, {"content-encoding": "gzip"}, gzip.compress(b" " * (BODY_BYTES_MAX + 1))),
        (200, {"content-encoding": "gzip"}, gzip.compress(b" " * BODY_BYTES_MAX) + gzip.compress(b" ")),
        (200, {"content-encoding": "gzip, gzip"}, gzip.compress(gzip.compress(b" " * (BODY_BYTES_MAX + 1)))),
        (200, {"content-encoding": "gzip, gzip, gzip"}, key_set(public(NEW_KEY, "new"))),
        (200, {"content-encoding": "deflate"}, zlib.compress(b" " * (BODY_BYTES_MAX + 1))),
        (200, {"content-encoding": "br"}, key_set(public(NEW_KEY, "new"))),
    ],
    ids=itertools.count(),  # the time is in some: each process of a run is to name its tests alike
)
async def test_an_unusable_answer_leaves_the_known_keys_in_service(
    keys: KeySet, issuer: Issuer, status: int, fields: dict[str, str], body: bytes
) -> None:
    issuer.status, issuer.fields, issuer.body = status, fields, body
    assert not await keys.refresh()
    assert issuer.asked == 2  # no redirect was followed
    assert keys.find("old")


async def test_an_issuer_that_is_away_leaves_the_known_keys_in_service(keys: KeySet, issuer: Issuer) -> None:
    issuer.close()
    assert not await keys.refresh()
    verifier = verifier_with(issuer.url, keys)
    assert verifier.verify(signed(OLD_KEY, "old")).org == "acme"


async def test_an_issuer_that_does_not_answer_is_given_up(issuer: Issuer) -> None:
    issuer.answering.clear()
    async with httpx.AsyncClient() as client:
        with pytest.raises(KeySetUnavailable, match="TimeoutError"):
            await fetch(client, issuer.url, timeout_seconds=0.01)


async def test_an_issuer_that_is_away_at_start_is_asked_again_soon(issuer: Issuer, time: Time) -> None:
    issuer.status = 503
    keys = KeySet.of(settings(issuer.url), time.clock, time.sleep)
    await keys.start()
    assert not keys.usable
    assert 0.8 * RETRY_SECONDS <= await time.pauses.get() <= RETRY_SECONDS
    issuer.status = 200
    time.woken.set()
    assert 0.8 * 300 <= await time.pauses.get() <= 300
    assert keys.usable
    await keys.close()
