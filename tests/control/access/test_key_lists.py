"""API keys that come by the hundred, and lists of them."""

import time
from base64 import b64encode, urlsafe_b64encode
from typing import Any

from httpx import AsyncClient, Response

from control.http.context import Context
from identity.api_key import hash_of
from quota.access import digest16
from tests.control.access.keys import created
from tests.control.plane import Entitled, TokenOf


async def test_hashes_from_elsewhere_are_imported_once_whatever_form_they_have(
    context: Context, entitled: Entitled, admin: AsyncClient
) -> None:
    org, other = await entitled("tiny"), await entitled("tiny")
    texts = [f"sk-elsewhere-{n}-{time.time()}" for n in range(3)]
    digests = [hash_of(text.encode()) for text in texts]
    forms = [
        digests[0].hex().upper(),
        b64encode(digests[1]).decode(),
        urlsafe_b64encode(digests[2]).decode().strip("="),
    ]
    body = {"keys": [{"hash": form, "name": f"key {n}", "user": "u1"} for n, form in enumerate([*forms, forms[0]])]}
    path = f"/v1/organizations/{org}/keys/import"
    answer = await admin.post(path, json=body)
    assert answer.status_code == 201, answer.text
    ids = [each["id"] for each in answer.json()["keys"]]
    assert ids[0] == ids[3]
    assert [each["id"] for each in (await admin.post(path, json=body)).json()["keys"]] == ids
    for text, key_id in zip(texts, ids, strict=False):
        assert await context.ledger.owner(digest16(text)) == org
        record = (await context.ledger.look(org, digest16(text))).record
        assert record is not None
        assert (record.id, record.user) == (key_id, "u1")
    elsewhere = await admin.post(f"/v1/organizations/{other}/keys/import", json=body)
    assert [each["id"] for each in elsewhere.json()["keys"]] == [None] * 4
    wrong = await admin.post(path, json={"keys": [{"hash": "z" * 64}]})
    assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, "body.keys.0.hash")


async def test_a_thousand_hashes_are_imported_in_one_call(entitled: Entitled, admin: AsyncClient) -> None:
    org = await entitled("tiny")
    listed = [
        {"hash": hash_of(f"{org} {n}".encode()).hex(), "scopes": ["route:x"], "user": f"u{n}"} for n in range(1000)
    ]
    answer = await admin.post(f"/v1/organizations/{org}/keys/import", json={"keys": listed})
    assert answer.status_code == 201, answer.text
    assert len({each["id"] for each in answer.json()["keys"]}) == 1000
    too_many = await admin.post(f"/v1/organizations/{org}/keys/import", json={"keys": [*listed, listed[0]]})
    assert too_many.status_code == 422


async def test_a_list_of_keys_has_pages_and_filters(entitled: Entitled, admin: AsyncClient) -> None:
    org = await entitled("tiny")
    made = [await created(admin, org, name=str(n), user="even" if n % 2 == 0 else "odd") for n in range(5)]
    await admin.delete(f"/v1/organizations/{org}/keys/{made[4]['id']}")

    async def listed(**query: object) -> dict[str, Any]:
        answer: dict[str, Any] = (await admin.get(f"/v1/organizations/{org}/keys", params={**query})).json()  # type: ignore[dict-item]  # httpx takes what it can print
        return answer

    first = await listed(limit=3)
    assert [key["name"] for key in first["keys"]] == ["4", "3", "2"]
    second = await listed(limit=3, before=first["next"])
    assert ([key["name"] for key in second["keys"]], second["next"]) == (["1", "0"], None)
    assert [key["name"] for key in (await listed(state="revoked"))["keys"]] == ["4"]
    assert [key["name"] for key in (await listed(user="odd"))["keys"]] == ["3", "1"]
    assert [key["name"] for key in (await listed(environment="test"))["keys"]] == []


async def test_a_key_of_another_organization_looks_as_one_that_is_not_there(
    entitled: Entitled, admin: AsyncClient, nobody: AsyncClient, token_of: TokenOf
) -> None:
    org, other = await entitled("tiny"), await entitled("tiny")
    key = await created(admin, other)
    paths = [f"/v1/organizations/{org}/keys/{key_id}" for key_id in (key["id"], "0" * 12)]

    async def tried(path: str) -> list[Response]:
        return [
            await admin.get(path),
            await admin.patch(path, json={"name": "x"}),
            await admin.post(f"{path}/roll"),
            await admin.delete(path),
        ]

    theirs, missing = [[(r.status_code, r.json()["detail"]) for r in await tried(path)] for path in paths]
    assert theirs == missing == [(404, "The organization has no such key.")] * 4
    headers = {"authorization": f"Bearer {token_of(org)}"}
    assert (await nobody.get(f"/v1/organizations/{other}/keys", headers=headers)).status_code == 403


async def test_a_key_of_an_unknown_organization_is_refused(admin: AsyncClient) -> None:
    assert (await admin.post("/v1/organizations/nobody-at-all/keys", json={})).status_code == 404
    assert (await admin.get("/v1/organizations/nobody-at-all/keys")).status_code == 404
