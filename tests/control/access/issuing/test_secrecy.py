"""Private keys are sealed, and nobody without a master key signs or adds a key."""

import json
from pathlib import Path
from typing import Any

import pytest
from httpx import AsyncClient
from pydantic import ValidationError

from control import sql
from control.access.issuing import key_pairs
from control.access.issuing.master_keys import MasterKeys, SealBroken
from control.access.issuing.store import SigningKeyUnreadable
from control.app import opened
from control.http.context import Context
from control.settings.control_plane import Settings
from devstack import postgres
from tests.control import running
from tests.control.access.issuing.rig import (
    MASTER_KEY,
    Refused,
    issuer_of,
    issuing,
    new_master_key,
    published,
    rotation_of,
    verified,
)
from tests.control.plane import MovedClock, admin_of


def test_a_sealed_key_opens_only_whole_with_its_master_key_and_for_its_id() -> None:
    master = MasterKeys([b"a" * 32])
    sealed = master.seal(b"private", "k1")
    assert b"private" not in sealed
    assert master.open(sealed, "k1") == b"private"
    assert MasterKeys([b"b" * 32, b"a" * 32]).open(sealed, "k1") == b"private"
    for damaged in (sealed[:-1], sealed + b"x", b"", sealed[:20], b"\x02" + sealed[1:]):
        with pytest.raises(SealBroken, match="damaged"):
            master.open(damaged, "k1")
    with pytest.raises(SealBroken, match="another signing key"):
        master.open(sealed, "k2")
    with pytest.raises(SealBroken, match="the settings have"):
        MasterKeys([b"b" * 32]).open(sealed, "k1")
    assert master.seal(b"private", "k1") != sealed, "a nonce is used once"


def test_no_key_is_in_a_repr() -> None:
    pair = key_pairs.generate("EdDSA")
    assert pair.private_key.hex() not in repr(pair)
    assert str(pair.private_key) not in repr(pair)
    assert MASTER_KEY not in repr(issuing())
    assert (b"m" * 32).hex() not in repr(MasterKeys([b"m" * 32]))


@pytest.mark.parametrize("master_key", ["short", "a" * 44, f"{MASTER_KEY},{MASTER_KEY}", f"{MASTER_KEY},", "é"])
def test_a_master_key_that_is_none_is_refused_and_not_shown(master_key: str) -> None:
    with pytest.raises(ValidationError) as refused:
        issuing(master_key)
    assert master_key not in str(refused.value)


@pytest.mark.parametrize("issuer", ["", "http://example.com", "https://a.example/", "https://u:p@a.example", "ftp://x"])
def test_an_issuer_without_a_url_of_its_own_is_refused(issuer: str) -> None:
    with pytest.raises(ValidationError):
        issuing(issuer=issuer)


async def test_what_the_database_holds_signs_nothing_without_the_master_key(
    context: Context, postgres_dsn: str
) -> None:
    token = (await issuer_of(context).mint("acme")).token
    dump = postgres.execute(postgres_dsn, "SELECT s.*, encode(sealed, 'escape') FROM signing_key s")
    [key] = await issuer_of(context).keys.read()
    private = MasterKeys([b"m" * 32]).open(key.sealed or b"", key.id)
    assert private.hex() not in dump
    assert token not in dump
    journaled = postgres.execute(postgres_dsn, "SELECT * FROM audit_journal WHERE action LIKE 'signing_key.%'")
    assert key.id in journaled
    assert private.hex() not in journaled


async def test_a_public_key_that_somebody_put_into_the_database_verifies_nothing(
    context: Context, admin: AsyncClient, postgres_dsn: str
) -> None:
    forged = key_pairs.generate("EdDSA")
    async with context.db.connection() as connection:
        [own] = await sql.signing_keys.all_keys(connection)
        row: dict[str, Any] = {"algorithm": "EdDSA", "created_at": own.created_at, "signs_from": own.signs_from}
        sealed = MasterKeys([b"x" * 32]).seal(forged.private_key, forged.id)
        await sql.signing_keys.insert(
            connection, id=forged.id, public_jwk=forged.public_jwk, sealed=sealed, token_seconds=900, **row
        )
    postgres.execute(
        postgres_dsn, f"UPDATE signing_key SET public_jwk = '{json.dumps(forged.public_jwk)}' WHERE id = '{own.id}'"
    )
    issuer_of(context).forget()
    [key] = json.loads(await published(admin))["keys"]
    assert (key["kid"], key["x"] == forged.public_jwk["x"]) == (own.id, False)


def test_a_wrong_master_key_stops_the_start_with_one_line(settings: Settings, tmp_path: Path) -> None:
    keys = {"QUOTAGATE_MASTER_KEY": MASTER_KEY, "QUOTAGATE_ISSUER": "https://quotagate.example.com"}
    with running.started(settings, tmp_path / "log", keys):
        pass
    wrong = {**keys, "QUOTAGATE_MASTER_KEY": new_master_key()}
    done = running.ended(settings, wrong)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("quotagate control: the signing key ")
    assert "the master key" in line
    assert wrong["QUOTAGATE_MASTER_KEY"] not in line


async def test_one_master_key_replaces_another_without_a_pause(
    settings: Settings, clock: MovedClock, postgres_dsn: str
) -> None:
    new = new_master_key()
    async with opened(settings, clock) as context:
        token = (await issuer_of(context).mint("acme")).token
    both = settings.model_copy(update={"issuing": issuing(f"{new},{MASTER_KEY}")})
    async with opened(both, clock) as context, admin_of(context) as admin:
        assert verified(token, await published(admin), clock.now)
        [key] = (await admin.get("/v1/signing-keys")).json()["keys"]
        assert (await admin.post("/v1/signing-keys/reencrypt")).json() == {"resealed": [key["id"]]}
        assert (await admin.post("/v1/signing-keys/reencrypt")).json() == {"resealed": []}
        assert verified((await issuer_of(context).mint("acme")).token, await published(admin), clock.now)
    async with (
        opened(settings.model_copy(update={"issuing": issuing(new)}), clock) as context,
        admin_of(context) as admin,
    ):
        assert verified(token, await published(admin), clock.now)
    with pytest.raises(SigningKeyUnreadable):
        async with opened(settings, clock):
            pass
    changes = postgres.execute(postgres_dsn, "SELECT count(*) FROM audit_journal WHERE action = 'signing_key.resealed'")
    assert changes == "1"


async def test_a_signing_key_that_cannot_be_read_is_an_incident_until_it_can(
    context: Context, admin: AsyncClient, clock: MovedClock, postgres_dsn: str
) -> None:
    issuer, rotation = issuer_of(context), rotation_of(context)
    sealed = postgres.execute(postgres_dsn, "SELECT encode(sealed, 'hex') FROM signing_key")
    postgres.execute(postgres_dsn, "UPDATE signing_key SET sealed = sealed || '\\x00'")
    issuer.forget()
    await rotation.round()
    await rotation.round()
    with pytest.raises(SigningKeyUnreadable):
        await issuer.mint("acme")
    await admin.put("/v1/organizations/acme", json={"name": "Acme"})
    answer = await admin.post("/v1/organizations/acme/tokens", json={})
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:quotagate:problem:keys-unavailable")
    [incident] = (await admin.get("/v1/incidents", params={"status": "open"})).json()["incidents"]
    assert (incident["kind"], incident["count"]) == ("signing_key_unreadable", 1)
    postgres.execute(postgres_dsn, f"UPDATE signing_key SET sealed = '\\x{sealed}'")
    issuer.forget()
    await rotation.round()
    assert (await admin.get("/v1/incidents", params={"status": "open"})).json()["incidents"] == []
    with pytest.raises(Refused):
        verified((await issuer.mint("acme")).token, b'{"keys": []}', clock.now)
