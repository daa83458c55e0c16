"""Stripe's webhooks, signed as Stripe signs them."""

import hashlib
import hmac
import itertools
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient, Response
from stripe import WebhookSignature

from control.app import build, opened
from control.billing.subscriptions.inbox import FLAW_ATTEMPTS_MAX, Inbox
from control.db import Database
from control.http.context import Context
from control.settings.control_plane import Settings
from tests.control.plane import MovedClock

SECRET, OLD_SECRET = "whsec_of_the_tests", "whsec_of_the_tests_before"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    stripe = {"secret_key": "sk_test_of_the_tests", "webhook_secret": (SECRET, OLD_SECRET)}
    return Settings.model_validate({**settings.model_dump(), "stripe": stripe})


@pytest.fixture
async def stripe(context: Context) -> AsyncIterator[AsyncClient]:
    transport = ASGITransport(build(context), raise_app_exceptions=False)
    async with AsyncClient(transport=transport, base_url="http://control") as client:
        yield client


def event(**fields: Any) -> dict[str, Any]:
    about = {"object": "customer", "id": "cus_1"}
    return {
        "id": "evt_1",
        "object": "event",
        "type": "customer.updated",
        "livemode": False,
        "created": int(time.time()),
        "data": {"object": about},
        **fields,
    }


async def sent(
    client: AsyncClient, body: str | bytes, secret: str = SECRET, at: float | None = None, header: str | None = None
) -> Response:
    text = body.decode("latin-1") if isinstance(body, bytes) else body
    signed = WebhookSignature.generate_signature_header(text, secret, int(time.time() if at is None else at))
    headers = {"stripe-signature": signed if header is None else header}
    content = body if isinstance(body, bytes) else body.encode()
    return await client.post("/api/webhooks/stripe", content=content, headers=headers)


async def filed(context: Context) -> list[str]:
    async with context.db.connection() as connection:
        return [row["id"] for row in await connection.fetch("SELECT id FROM webhook_event ORDER BY id")]


@pytest.fixture(autouse=True)
async def empty_inbox(context: Context) -> None:
    async with context.db.connection() as connection:
        await connection.execute("DELETE FROM webhook_event")
        await connection.execute("DELETE FROM incident")


async def test_a_signed_event_is_filed_once_however_often_it_comes(stripe: AsyncClient, context: Context) -> None:
    for _ in range(3):
        assert (await sent(stripe, json.dumps(event()))).status_code == 200
    assert await filed(context) == ["evt_1"]


async def test_an_event_that_postgres_cannot_take_is_answered_503_and_filed_when_stripe_sends_it_again(
    stripe: AsyncClient, context: Context, settings: Settings
) -> None:
    async with Database.open(settings.postgres.dsn.get_secret_value()) as away:
        pass
    assert context.billing is not None
    inbox = Inbox(away, context.billing.converger)
    cut_off = build(replace(context, db=away, billing=replace(context.billing, inbox=inbox)))
    async with AsyncClient(transport=ASGITransport(cut_off), base_url="http://control") as client:
        assert (await sent(client, json.dumps(event()))).status_code == 503
    assert await filed(context) == []
    assert (await sent(stripe, json.dumps(event()))).status_code == 200
    assert await filed(context) == ["evt_1"]


async def test_while_secrets_are_replaced_both_are_believed(stripe: AsyncClient, context: Context) -> None:
    assert (await sent(stripe, json.dumps(event()), OLD_SECRET)).status_code == 200
    assert await filed(context) == ["evt_1"]


@pytest.mark.parametrize(
    ("body", "how"),
    [
        (json.dumps(event()), {"secret": "whsec_of_somebody_else"}),
        (json.dumps(event()), {"header": ""}),
        (json.dumps(event()), {"header": "t=1,v1=é".encode("latin-1").decode("latin-1")}),
        (json.dumps(event()), {"header": "v1=00"}),
        (json.dumps(event()), {"at": time.time() - 3600}),
        (json.dumps(event()), {"at": time.time() + 3600}),
        ("no json", {}),
        ("[]", {}),
        (json.dumps({"id": 1, "type": "customer.updated"}), {}),
        (b"\xff\xfe", {}),
    ],
    ids=["other secret", "no signature", "strange", "no time", "late", "future", "no json", "list", "no id", "no text"],
)
async def test_what_stripe_did_not_sign_now_is_answered_400_and_not_filed(
    stripe: AsyncClient, context: Context, body: str | bytes, how: dict[str, Any]
) -> None:
    if isinstance(how.get("header"), str) and "é" in how["header"]:
        response = await stripe.post(
            "/api/webhooks/stripe",
            content=body if isinstance(body, bytes) else body.encode(),
            headers=[(b"stripe-signature", how["header"].encode("latin-1"))],
        )
    else:
        response = await sent(stripe, body, **how)
    assert response.status_code == 400, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert await filed(context) == []


async def test_a_tampered_body_is_refused(stripe: AsyncClient, context: Context) -> None:
    body = json.dumps(event())
    header = WebhookSignature.generate_signature_header(body, SECRET)
    tampered = body.replace("cus_1", "cus_2").encode()
    response = await stripe.post("/api/webhooks/stripe", content=tampered, headers={"stripe-signature": header})
    assert response.status_code == 400
    assert await filed(context) == []


async def test_an_event_of_the_other_mode_is_refused_and_an_admin_is_told(
    stripe: AsyncClient, context: Context
) -> None:
    assert (await sent(stripe, json.dumps(event(livemode=True)))).status_code == 400
    assert await filed(context) == []
    async with context.db.connection() as connection:
        kinds = await connection.fetch("SELECT kind FROM incident WHERE closed_at IS NULL")
    assert [row["kind"] for row in kinds] == ["stripe_wrong_mode"]


async def test_a_body_over_one_mebibyte_is_refused(stripe: AsyncClient, context: Context) -> None:
    assert (await sent(stripe, json.dumps(event(padding="x" * 1024 * 1024)))).status_code == 413
    assert await filed(context) == []


async def test_an_empty_secret_is_a_closed_door(settings: Settings, context: Context) -> None:
    without = settings.model_copy(update={"stripe": settings.stripe.model_copy(update={"webhook_secret": ()})})
    async with opened(without) as closed:
        transport = ASGITransport(build(closed), raise_app_exceptions=False)
        async with AsyncClient(transport=transport, base_url="http://control") as client:
            assert (await sent(client, json.dumps(event()), "")).status_code == 404
    assert await filed(context) == []


async def test_an_event_of_an_unknown_type_is_filed_and_ignored(stripe: AsyncClient, context: Context) -> None:
    about = {"object": "payout", "id": "po_1"}
    await sent(stripe, json.dumps(event(type="payout.paid", data={"object": about})))
    assert context.billing is not None
    await context.billing.inbox.settle()
    async with context.db.connection() as connection:
        assert await connection.fetchval("SELECT outcome FROM webhook_event") == "ignored"


async def test_a_thin_event_of_a_meters_errors_is_an_incident(stripe: AsyncClient, context: Context) -> None:
    thin = {
        "id": "evt_test_65Thin",
        "object": "v2.core.event",
        "type": "v1.billing.meter.error_report_triggered",
        "livemode": False,
        "created": "2026-11-23T09:00:00.000Z",
        "related_object": {"id": "mtr_1", "type": "billing.meter", "url": "/v1/billing/meters/mtr_1"},
    }
    assert (await sent(stripe, json.dumps(thin))).status_code == 200
    assert context.billing is not None
    await context.billing.inbox.settle()
    async with context.db.connection() as connection:
        assert await connection.fetchval("SELECT outcome FROM webhook_event") == "done"
        assert await connection.fetchval("SELECT kind FROM incident WHERE closed_at IS NULL") == "stripe_meter_errors"


@pytest.mark.parametrize("created", [None, "yesterday", -5, 10**30, {"at": 1}])
async def test_an_event_with_an_odd_time_is_filed_all_the_same(
    stripe: AsyncClient, context: Context, created: object
) -> None:
    assert (await sent(stripe, json.dumps(event(created=created)))).status_code == 200
    assert await filed(context) == ["evt_1"]


async def test_an_event_without_data_or_with_odd_data_is_answered_and_hurts_nobody(
    stripe: AsyncClient, context: Context
) -> None:
    odd: list[Any] = [None, [], {"object": None}, {"object": "x"}, {"object": {"id": "\0", "object": 7}}, "x"]
    for number, data in enumerate(odd):
        assert (await sent(stripe, json.dumps(event(id=f"evt_{number}", data=data)))).status_code == 200
    assert len(await filed(context)) == 6


def header_of(body: bytes, at: str, secret: str = SECRET) -> str:
    signature = hmac.new(secret.encode(), at.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={signature}"


BODY = json.dumps(event()).encode()


@pytest.mark.parametrize(
    "header",
    [
        header_of(BODY, "T=5"),
        header_of(BODY, ""),
        header_of(BODY, "-1"),
        header_of(BODY, "1e9"),
        header_of(BODY, "9" * 400),
        header_of(BODY, "9" * 5000),
        header_of(BODY, "٣"),
        header_of(BODY, str(int(time.time()))).replace("t=", "T="),
        header_of(BODY, str(int(time.time()))).replace("t=", "t=5,t="),
        header_of(BODY, str(int(time.time()))).replace("v1=", "v0="),
        header_of(BODY, str(int(time.time()))).replace("v1=", "v1"),
        header_of(BODY, str(int(time.time()))).replace("v1=", "v1=="),
        header_of(BODY, str(int(time.time()))).upper(),
        "t=,v1=",
        "t",
        ",",
        "=",
        "t=1",
        "v1=" + "a" * 64,
        "t=1,v1=ü",
        "x" * 60_000,
    ],
    ids=itertools.count(),  # the time is in some: each process of a run is to name its tests alike
)
async def test_a_signature_header_that_stripe_would_not_write_is_answered_400(
    stripe: AsyncClient, context: Context, header: str
) -> None:
    response = await stripe.post("/api/webhooks/stripe", content=BODY, headers={b"stripe-signature": header.encode()})
    assert response.status_code == 400, response.text
    assert await filed(context) == []


async def test_two_signature_headers_are_answered_400(stripe: AsyncClient, context: Context) -> None:
    header = header_of(BODY, str(int(time.time())))
    twice = [("stripe-signature", header), ("stripe-signature", header)]
    assert (await stripe.post("/api/webhooks/stripe", content=BODY, headers=twice)).status_code == 400
    assert await filed(context) == []


def raw(rest: str, event_id: str = "evt_1") -> str:
    """An event with these further members, as text."""
    return f'{{"id": "{event_id}", "type": "customer.updated", "livemode": false, {rest}}}'


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (raw('"data": null'), 200),
        (raw('"a": "\\u0000"'), 200),
        (raw('"a": "\\\\u0000"'), 200),
        (raw('"\\u0000": 1'), 200),
        (raw('"a": "\\ud800"'), 200),
        (raw('"a": "\\udfff\\ud800 x"'), 200),
        (raw('"a": "\\ud83d\\ude00"'), 200),
        (raw('"a": 1e400'), 400),
        (raw('"a": -1e400'), 400),
        (raw('"a": 1e308'), 200),
        (raw('"a": 1e-400'), 200),
        (raw('"a": NaN'), 400),
        (raw('"a": ' + "9" * 4000), 200),
        (raw('"a": ' + "9" * 5000), 400),
        (raw('"a": 1, "a": 2'), 400),
        (raw('"data": {"object": {"id": "cus_1", "id": "cus_2"}}'), 400),
        (raw('"a": ' + "[" * 60 + "]" * 60), 200),
        (raw('"a": ' + "[" * 900 + "]" * 900), 400),
        (raw('"a": ' + '{"a": ' * 900 + "1" + "}" * 900), 400),
        (raw('"a": ' + "[" * 400_000 + "]" * 400_000), 400),
        (raw('"a": 1', "evt_\\u0000"), 200),
        (raw('"a": 1', "evt_\\ud800"), 200),
        (raw('"a": 1', ""), 400),
        (raw('"a": 1', "evt 1"), 400),
        (raw('"a": 1', "e" * 256), 400),
        (raw('"a": 1', "evt_ü"), 400),
        (raw('"a": 1').replace("false", "null"), 400),
        (raw('"a": 1').replace("false", "0"), 400),
        (raw('"a": 1').encode("utf-16"), 400),
        (b"\xef\xbb\xbf" + raw('"a": 1').encode(), 400),
        ("", 400),
        ("{", 400),
        ("null", 400),
        ("{}{}", 400),
    ],
)
async def test_an_odd_body_behind_a_good_signature_is_filed_or_answered_400(
    stripe: AsyncClient, context: Context, body: str | bytes, status: int
) -> None:
    text = body if isinstance(body, bytes) else body.encode()
    headers = {"stripe-signature": header_of(text, str(int(time.time())))}
    response = await stripe.post("/api/webhooks/stripe", content=text, headers=headers)
    assert response.status_code == status, response.text
    assert len(await filed(context)) == (status == 200)


async def test_a_text_that_only_looks_like_nul_is_kept(stripe: AsyncClient, context: Context) -> None:
    assert (await sent(stripe, raw(r'"a": "\\u0000", "b": "x\u0000y"'))).status_code == 200
    async with context.db.connection() as connection:
        payload = await connection.fetchval("SELECT payload FROM webhook_event")
    assert (payload["a"], payload["b"]) == (r"\u0000", "xy")


async def test_an_event_that_our_own_code_cannot_read_is_told_soon_and_not_tried_for_hours(
    context: Context, clock: MovedClock
) -> None:
    async def flawed(customer: str | None, events: Sequence[Any]) -> tuple[list[str], list[str]]:
        raise TypeError("'NoneType' object is not subscriptable")

    inbox = Inbox(context.db, flawed, clock)
    await inbox.file([event()])
    for _ in range(FLAW_ATTEMPTS_MAX):
        await inbox.settle()
        clock.move(minutes=20)
    async with context.db.connection() as connection:
        row = await connection.fetchrow("SELECT outcome, attempts FROM webhook_event")
        assert (row["outcome"], row["attempts"]) == ("dead", FLAW_ATTEMPTS_MAX)
        assert await connection.fetchval("SELECT kind FROM incident WHERE closed_at IS NULL") == "stripe_event_dead"
