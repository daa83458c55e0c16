"""A text that was found where it should not be: whose key it is, and what happens to it."""

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from httpx import AsyncClient, Response

from control.access.keys.leak_reports import PublicKeys
from control.http.context import Context
from control.settings.control_plane import LeakReports, Settings
from identity.api_key import generate, hash_of
from identity.keysets.jwk import KeySetUnavailable
from quota.access import KeyState, digest16
from tests.control.access.keys import created
from tests.control.plane import Entitled

IDENTIFIER = "90a421169f0a406205f1563a953312f0be898d3c7b6c06b681aa86a874555f4a"


def document(**keys: ec.EllipticCurvePrivateKey) -> str:
    listed = [
        {
            "key_identifier": name,
            "key": key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
            "is_current": True,
        }
        for name, key in keys.items()
    ]
    return json.dumps({"public_keys": listed})


@pytest.fixture(scope="module")
def scanner() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def revoke_leaked() -> bool | None:
    """None: no scanner is set up."""
    return False


@pytest.fixture
def settings(
    settings: Settings, scanner: ec.EllipticCurvePrivateKey, tmp_path: Path, revoke_leaked: bool | None
) -> Settings:
    file = tmp_path / "public_keys.json"
    file.write_text(document(**{IDENTIFIER: scanner}))
    reports = None
    if revoke_leaked is not None:
        reports = LeakReports(public_keys=str(file), revoke_leaked=revoke_leaked)
    return settings.model_copy(update={"leak_reports": reports})


async def reported(
    client: AsyncClient, scanner: ec.EllipticCurvePrivateKey, payload: bytes, **headers: str
) -> Response:
    signature = b64encode(scanner.sign(payload, ec.ECDSA(SHA256()))).decode()
    fields = {"Github-Public-Key-Identifier": IDENTIFIER, "Github-Public-Key-Signature": signature} | headers
    return await client.post("/v1/keys/leaks", content=payload, headers=fields)


def found(*texts: str) -> bytes:
    report = {"type": "quotagate_api_key", "url": "https://github.com/acme/app/blob/main/.env", "source": "content"}
    return json.dumps([{"token": text, **report} for text in texts]).encode()


async def open_incidents(admin: AsyncClient, key: dict[str, Any]) -> list[dict[str, Any]]:
    incidents = (await admin.get("/v1/incidents", params={"limit": 500})).json()["incidents"]
    return [each for each in incidents if each["kind"] == "key_leaked" and each["key"] == key["id"]]


async def test_a_report_opens_an_incident_that_names_the_key_and_is_answered_with_labels(
    context: Context,
    entitled: Entitled,
    admin: AsyncClient,
    nobody: AsyncClient,
    scanner: ec.EllipticCurvePrivateKey,
) -> None:
    org = await entitled("tiny")
    key, unknown = await created(admin, org, name="CI"), generate("qg", "live")
    answer = await reported(nobody, scanner, found(key["key"], unknown, "ghp_of-somebody-else"))
    assert answer.status_code == 200, answer.text
    assert answer.json() == [
        {"token_hash": hash_of(text.encode()).hex(), "token_type": "quotagate_api_key", "label": label}
        for text, label in (
            (key["key"], "true_positive"),
            (unknown, "false_positive"),
            ("ghp_of-somebody-else", "false_positive"),
        )
    ]
    [incident] = await open_incidents(admin, key)
    assert (incident["org"], incident["content"]["revoked"], incident["content"]["name"]) == (org, False, "CI")
    assert incident["content"]["url"] == "https://github.com/acme/app/blob/main/.env"
    assert key["key"] not in json.dumps(incident)
    record = (await context.ledger.look(org, digest16(key["key"]))).record
    assert record is not None
    assert record.state is KeyState.ACTIVE


@pytest.mark.parametrize("revoke_leaked", [True])
async def test_a_leaked_key_is_revoked_where_the_settings_say_so_and_again_it_changes_nothing(
    context: Context,
    entitled: Entitled,
    admin: AsyncClient,
    nobody: AsyncClient,
    scanner: ec.EllipticCurvePrivateKey,
) -> None:
    org = await entitled("tiny")
    key = await created(admin, org)
    for _ in range(2):
        answer = await reported(nobody, scanner, found(key["key"]))
        assert [each["label"] for each in answer.json()] == ["true_positive"]
        record = (await context.ledger.look(org, digest16(key["key"]))).record
        assert record is not None
        assert record.state is KeyState.REVOKED
    [incident] = await open_incidents(admin, key)
    assert (incident["count"], incident["content"]["revoked"]) == (1, True)
    [entry, *_] = (await admin.get(f"/v1/organizations/{org}/journal")).json()["entries"]
    assert (entry["action"], entry["actor"], entry["after"]) == (
        "key.revoked",
        "leak report",
        {"reason": "found in public"},
    )


@pytest.mark.parametrize(
    "damage", ["other key", "body", "no signature", "two signatures", "unknown identifier", "no base64"]
)
async def test_what_the_scanner_did_not_sign_is_refused_and_changes_nothing(
    entitled: Entitled,
    admin: AsyncClient,
    nobody: AsyncClient,
    scanner: ec.EllipticCurvePrivateKey,
    damage: str,
) -> None:
    key = await created(admin, await entitled("tiny"))
    payload = found(key["key"])
    signature = b64encode(scanner.sign(payload, ec.ECDSA(SHA256()))).decode()
    headers = [("Github-Public-Key-Identifier", IDENTIFIER), ("Github-Public-Key-Signature", signature)]
    if damage == "other key":
        stranger = ec.generate_private_key(ec.SECP256R1())
        headers[1] = (headers[1][0], b64encode(stranger.sign(payload, ec.ECDSA(SHA256()))).decode())
    elif damage == "body":
        payload += b" "
    elif damage == "no signature":
        headers = headers[:1]
    elif damage == "two signatures":
        headers.append(headers[1])
    elif damage == "unknown identifier":
        headers[0] = (headers[0][0], "0" * 64)
    else:
        headers[1] = (headers[1][0], "&&&&")
    answer = await nobody.post("/v1/keys/leaks", content=payload, headers=headers)
    assert answer.status_code == 400, answer.text
    assert await open_incidents(admin, key) == []


@pytest.mark.parametrize("payload", [b"", b"{}", b"[1]", b'[{"token": 1}]', b'[{"token": ""}]', b"[[[[", b'"x"'])
async def test_a_signed_body_that_is_no_report_is_refused(
    nobody: AsyncClient, scanner: ec.EllipticCurvePrivateKey, payload: bytes
) -> None:
    assert (await reported(nobody, scanner, payload)).status_code == 400


async def test_an_admin_asks_whose_key_a_text_is(entitled: Entitled, admin: AsyncClient, nobody: AsyncClient) -> None:
    org = await entitled("tiny")
    key = await created(admin, org)

    async def asked(text: str) -> dict[str, Any]:
        answer: dict[str, Any] = (await admin.post("/v1/keys/verify", json={"key": text})).json()
        return answer

    known = await asked(key["key"])
    assert (known["form"], known["organization"], known["key"]["id"]) == ("key", org, key["id"])
    assert await asked(generate("qg", "live")) == {"form": "key", "organization": None, "key": None}
    assert await asked(key["key"][:-1]) == {"form": "other", "organization": None, "key": None}
    assert (await nobody.post("/v1/keys/verify", json={"key": key["key"]})).status_code == 401


@pytest.mark.parametrize("revoke_leaked", [None])
async def test_where_no_scanner_is_set_up_nothing_can_be_reported(
    nobody: AsyncClient, scanner: ec.EllipticCurvePrivateKey
) -> None:
    assert (await reported(nobody, scanner, b"[]")).status_code == 404


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def public_keys(tmp_path: Path) -> tuple[PublicKeys, Path, Time]:
    file, clock = tmp_path / "keys.json", Time()
    file.write_text(document(old=ec.generate_private_key(ec.SECP256R1())))
    return PublicKeys(str(file), clock), file, clock


async def test_a_new_public_key_is_read_when_it_is_named_and_made_up_names_cost_one_read_in_30_seconds(
    public_keys: tuple[PublicKeys, Path, Time],
) -> None:
    keys, file, clock = public_keys
    assert await keys.find("old") is not None
    file.write_text(document(new=ec.generate_private_key(ec.SECP256R1())))
    assert await keys.find("new") is None
    clock.now += 31
    assert await keys.find("new") is not None
    assert await keys.find("old") is None


async def test_while_no_public_key_can_be_read_a_report_can_be_sent_again(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text("{}")
    with pytest.raises(KeySetUnavailable):
        await PublicKeys(str(file)).find("one")


async def test_a_public_key_of_another_curve_is_not_believed(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(
        document(weak=ec.generate_private_key(ec.SECP192R1()), good=ec.generate_private_key(ec.SECP256R1()))
    )
    keys = PublicKeys(str(file))
    assert await keys.find("weak") is None
    assert await keys.find("good") is not None
