"""Where keys come from, and how often they are asked for."""

import asyncio
import gzip
import zlib
from pathlib import Path
from typing import Any

import pytest

from identity.keysets.keyset import RETRY_SECONDS, KeySet
from identity.refusals import KeyRefreshDue, Reason, TokenRefused
from identity.settings import IssuerSettings
from tests.identity.keysets.issuing import (
    NEW_KEY,
    OLD_KEY,
    Issuer,
    Time,
    key_set,
    public,
    settings,
    signed,
    verified,
    verifier_with,
)


async def test_keys_are_loaded_from_a_url_at_start(keys: KeySet, issuer: Issuer) -> None:
    verifier = verifier_with(issuer.url, keys)
    assert verifier.verify(signed(OLD_KEY, "old")).org == "acme"
    assert issuer.asked == 1


async def test_random_key_ids_cause_one_fetch_in_30_seconds(keys: KeySet, issuer: Issuer, time: Time) -> None:
    verifier = verifier_with(issuer.url, keys)

    async def ask(kid: str) -> None:
        with pytest.raises(TokenRefused) as refused:
            verifier.verify(signed(OLD_KEY, kid))
        assert refused.value.reason == Reason.UNKNOWN_KEY
        assert isinstance(refused.value, KeyRefreshDue) == keys.due
        await keys.refresh_if_due()

    time.now = 100
    for number in range(50):
        await ask(f"random-{number}")
    assert issuer.asked == 2
    time.now = 100 + RETRY_SECONDS - 0.1
    await ask("random")
    assert issuer.asked == 2
    time.now = 100 + RETRY_SECONDS
    await ask("random")
    assert issuer.asked == 3


async def test_all_who_wait_for_a_new_key_share_one_fetch(keys: KeySet, issuer: Issuer, time: Time) -> None:
    time.now = 100
    issuer.body = key_set(public(OLD_KEY, "old"), public(NEW_KEY, "new"))
    await asyncio.gather(*(keys.refresh_if_due() for _ in range(50)))
    assert keys.find("new")
    assert issuer.asked == 2


async def test_one_who_stops_waiting_does_not_stop_the_fetch_for_others(
    keys: KeySet, issuer: Issuer, time: Time
) -> None:
    time.now = 100
    issuer.body = key_set(public(NEW_KEY, "new"))
    issuer.answering.clear()
    impatient, patient = (asyncio.create_task(keys.refresh_if_due()) for _ in range(2))
    await asyncio.sleep(0)
    impatient.cancel()
    issuer.answering.set()
    await patient
    assert keys.find("new")
    assert impatient.cancelled() or impatient.cancelling()


async def test_wrong_signatures_cause_one_fetch_in_30_seconds(keys: KeySet, issuer: Issuer, time: Time) -> None:
    verifier = verifier_with(issuer.url, keys)
    for now, asked in ((1, 1), (RETRY_SECONDS, 2), (2 * RETRY_SECONDS - 0.1, 2), (2 * RETRY_SECONDS, 3)):
        time.now = now
        for _ in range(20):
            assert verified(verifier, signed(NEW_KEY, "old")) == Reason.BAD_SIGNATURE
            await keys.refresh_if_due()
        assert issuer.asked == asked, now


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, 300),
        ({"cache-control": "max-age=900"}, 900),
        ({"cache-control": "public, MAX-AGE=900, must-revalidate"}, 900),
        ({"cache-control": "max-age=900", "age": "300"}, 600),
        ({"cache-control": "max-age=900", "age": "soon"}, 900),
        ({"cache-control": "max-age=86400"}, 3600),
        ({"cache-control": "max-age=9999999999"}, 3600),
        ({"cache-control": "max-age=1"}, RETRY_SECONDS),
        ({"cache-control": "max-age=10", "age": "100"}, RETRY_SECONDS),
        ({"cache-control": "no-store"}, RETRY_SECONDS),
        ({"cache-control": "max-age=900, no-cache"}, RETRY_SECONDS),
        ({"cache-control": "max-age=-1"}, 300),
        ({"cache-control": "max-age=soon"}, 300),
        ({"cache-control": "s-maxage=900"}, 300),
    ],
)
async def test_the_key_set_is_read_again_when_its_cache_control_says_within_bounds(
    issuer: Issuer, time: Time, fields: dict[str, str], seconds: float
) -> None:
    issuer.fields = fields
    keys = KeySet.of(settings(issuer.url), time.clock, time.sleep)
    await keys.start()
    assert 0.8 * seconds <= await time.pauses.get() <= seconds
    await keys.close()


async def test_the_refresh_interval_is_a_setting(issuer: Issuer, time: Time) -> None:
    auth = settings(issuer.url, jwks_refresh_seconds=10, jwks_refresh_seconds_max=20)
    keys = KeySet.of(auth, time.clock, time.sleep)
    await keys.start()
    for fields, seconds in (({}, 10), ({"cache-control": "max-age=60"}, 20), ({"cache-control": "max-age=1"}, 10)):
        issuer.fields = fields
        assert await keys.refresh()
        await time.pauses.get()
        time.woken.set()
        assert 0.8 * seconds <= await time.pauses.get() <= seconds
        time.pauses.put_nowait(0)
    await keys.close()


@pytest.mark.parametrize(
    ("coding", "compressed"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("gzip", lambda body: gzip.compress(body[:20]) + gzip.compress(body[20:])),
        ("deflate", zlib.compress),
        ("deflate", lambda body: zlib.compress(body)[2:-4]),
        ("deflate, gzip", lambda body: gzip.compress(zlib.compress(body))),
        ("identity", lambda body: body),
    ],
)
async def test_a_compressed_key_set_is_read(issuer: Issuer, time: Time, coding: str, compressed: Any) -> None:
    issuer.fields, issuer.body = {"content-encoding": coding}, compressed(key_set(public(OLD_KEY, "old")))
    keys = KeySet.of(settings(issuer.url), time.clock, time.sleep)
    await keys.start()
    assert keys.find("old")
    await keys.close()


async def test_keys_are_refreshed_in_the_background(keys: KeySet, issuer: Issuer, time: Time) -> None:
    assert 0.8 * 300 <= await time.pauses.get() <= 300
    issuer.body = key_set(public(NEW_KEY, "new"))
    time.woken.set()
    await time.pauses.get()
    assert keys.find("new")
    assert not keys.find("old")


async def test_keys_come_from_a_file_and_are_read_again_when_it_changes(tmp_path: Path, time: Time) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(key_set(public(OLD_KEY, "old")))
    keys = KeySet.of(settings(str(file)), time.clock, time.sleep)
    await keys.start()
    assert keys.find("old")
    file.write_bytes(key_set(public(NEW_KEY, "new")))
    assert await keys.refresh()
    assert keys.find("new")
    file.write_bytes(b"half written")
    assert not await keys.refresh()
    file.unlink()
    assert not await keys.refresh()
    assert keys.find("new")
    await keys.close()


async def test_a_shared_secret_is_the_only_key_and_is_never_refreshed(time: Time) -> None:
    auth = IssuerSettings.model_validate({"algorithms": ("HS256",), "secret": "x" * 32, "issuer": "issuer"})
    keys = KeySet.of(auth, time.clock, time.sleep)
    await keys.start()
    assert keys.find("anything") == keys.find(None)
    assert not keys.due
    await keys.refresh_if_due()
    assert keys.usable
    await keys.close()
