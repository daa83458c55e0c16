"""The promise: what the vendor is to be told arrives, signed, at least once and under one id, or an admin is told."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from httpx import AsyncClient

from common.settings_file import SettingsError, parse
from control.db import Database
from control.http.context import Context
from control.notifications import outbox
from control.notifications.notifier import BACKOFF, Attempts, Notifier
from control.notifications.outbox import Notification
from control.settings.control_plane import Notifications, Settings
from control.sql.notifications import Claimed
from control.webhook_signature import key_of, signatures
from tests.control.plane import MovedClock, TokenOf
from tests.control.receiver import SECRET, Delivery, Receiver, status

DAY = 86_400
PATIENT = Attempts(poll_seconds=0.02)


class WatchedNotifier(Notifier):
    """A notifier that counts its looks at the outbox."""

    def __init__(self, db: Database, settings: Notifications, clock: Callable[[], float], attempts: Attempts) -> None:
        super().__init__(db, settings, clock, attempts=attempts)
        self._claims: list[int] = []

    async def _claim(self, limit: int) -> list[Claimed]:
        claimed = await super()._claim(limit)
        self._claims.append(len(claimed))
        return claimed

    async def finds_nothing(self) -> None:
        """It looks twice, and nothing is due. The first look may have begun before."""
        seen = len(self._claims)
        async with asyncio.timeout(60):
            while len(self._claims) < seen + 2:  # noqa: ASYNC110  it looks on its own
                await asyncio.sleep(0.01)
        assert not any(self._claims[seen:])


Notifying = Callable[..., AbstractAsyncContextManager[WatchedNotifier]]


@pytest.fixture(autouse=True)
async def an_empty_outbox(context: Context) -> None:
    async with context.db.connection() as connection:
        await connection.execute("DELETE FROM notification; DELETE FROM incident")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver().listening() as listening:
        yield listening


@pytest.fixture
def notifying(context: Context, receiver: Receiver) -> Notifying:
    """A notifier that runs, as in a control plane."""

    @asynccontextmanager
    async def run(
        url: str | None = None, secret: str | Sequence[str] = SECRET, attempts: Attempts = PATIENT
    ) -> AsyncIterator[WatchedNotifier]:
        settings = Notifications.model_validate({"url": url or receiver.url, "secret": secret})
        one = WatchedNotifier(context.db, settings, context.clock, attempts)
        task = asyncio.create_task(one.run())
        try:
            yield one
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return run


async def tell(context: Context, count: int = 1) -> None:
    async with context.db.transaction() as connection:
        notifications = [Notification("usage.threshold_reached", "acme", {"n": n}) for n in range(count)]
        await outbox.add(connection, context.clock(), notifications)


async def outcomes(db: Database) -> list[tuple[Any, ...]]:
    async with db.connection() as connection:
        rows = await connection.fetch("SELECT outcome, attempts, last_error FROM notification ORDER BY id")
    return [tuple(row) for row in rows]


async def eventually(db: Database, expected: list[tuple[Any, ...]]) -> None:
    async with asyncio.timeout(60):
        while sorted(await outcomes(db), key=str) != sorted(expected, key=str):  # noqa: ASYNC110  no event in a table
            await asyncio.sleep(0.02)


def signed(delivery: Delivery, secret: str) -> bool:
    """As a receiver verifies: https://github.com/standard-webhooks/standard-webhooks, "Verifying signatures"."""
    fields = delivery.fields
    content = b".".join([fields["webhook-id"].encode(), fields["webhook-timestamp"].encode(), delivery.body])
    expected = hmac.digest(base64.b64decode(secret.removeprefix("whsec_")), content, hashlib.sha256)
    given = [each.split(",", 1) for each in fields["webhook-signature"].split(" ")]
    return any(hmac.compare_digest(base64.b64decode(value), expected) for version, value in given if version == "v1")


def test_a_signature_is_that_of_the_specifications_example() -> None:
    body = b'{"test": 2432232314}'
    made = signatures([key_of(SECRET)], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_a_notification_arrives_once_signed_and_is_done(
    context: Context, receiver: Receiver, notifying: Notifying, clock: MovedClock
) -> None:
    await tell(context)
    async with notifying() as one:
        [delivery] = await receiver.received(1)
        await eventually(context.db, [("delivered", 1, None)])
        clock.move(days=2)
        await one.finds_nothing()
    assert receiver.deliveries == [delivery]
    assert (delivery.path, delivery.fields["content-type"]) == ("/hooks", "application/json")
    assert signed(delivery, SECRET)
    assert abs(int(delivery.fields["webhook-timestamp"]) + 2 * DAY - clock()) < 2
    body = json.loads(delivery.body)
    assert (body["type"], body["data"]) == ("usage.threshold_reached", {"n": 0})


async def test_while_a_secret_is_replaced_both_verify(
    context: Context, receiver: Receiver, notifying: Notifying
) -> None:
    secrets = [SECRET, f"whsec_{base64.b64encode(b'another-secret-of-32-bytes-or-so').decode()}"]
    await tell(context)
    async with notifying(secret=secrets):
        [delivery] = await receiver.received(1)
    assert [signed(delivery, secret) for secret in secrets] == [True, True]
    assert not signed(delivery, f"whsec_{base64.b64encode(b'a secret that is none of the two').decode()}")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (status(500), "answered 500"),
        (status(404), "answered 404"),
        (status(302, "Location: /elsewhere"), "answered 302"),
        (b"not HTTP\r\n\r\n", "RemoteProtocolError: illegal status line: bytearray(b'not HTTP')"),
    ],
)
async def test_what_is_not_accepted_is_sent_again_later_under_the_same_id(
    context: Context, receiver: Receiver, notifying: Notifying, clock: MovedClock, answer: bytes, error: str
) -> None:
    receiver.answers.append(answer)
    await tell(context)
    async with notifying() as one:
        await eventually(context.db, [(None, 1, error)])
        await one.finds_nothing()
        assert len(receiver.deliveries) == 1, "it waits"
        clock.move(seconds=7)
        await eventually(context.db, [("delivered", 2, None)])
    first, second = receiver.deliveries
    assert (first.path, first.id, first.body) == (second.path, second.id, second.body)
    assert int(second.fields["webhook-timestamp"]) == int(first.fields["webhook-timestamp"]) + 7
    assert signed(second, SECRET)


async def test_an_endpoint_that_is_away_for_hours_loses_nothing(
    context: Context, notifying: Notifying, clock: MovedClock
) -> None:
    away = Receiver()
    await tell(context, 20)
    async with notifying(away.url):
        for attempts in range(1, 7):
            await eventually(context.db, [(None, attempts, "ConnectError: All connection attempts failed")] * 20)
            clock.move(seconds=BACKOFF.seconds(attempts, 1))
        async with away.listening():
            clock.move(hours=6)
            await away.received(20)
            await eventually(context.db, [("delivered", o[1], None) for o in await outcomes(context.db)])
    assert {json.loads(each.body)["data"]["n"] for each in away.deliveries} == set(range(20))
    assert len({each.id for each in away.deliveries}) == len(away.deliveries) == 20


async def test_after_about_a_day_it_is_given_up_and_an_admin_is_told(
    context: Context, receiver: Receiver, notifying: Notifying, admin: AsyncClient, clock: MovedClock
) -> None:
    receiver.answers.extend([status(503)] * 2 * PATIENT.most)
    await tell(context, 2)
    async with notifying() as one:
        for attempts in range(1, PATIENT.most):
            await eventually(context.db, [(None, attempts, "answered 503")] * 2)
            clock.move(seconds=BACKOFF.seconds(attempts, 1))
        await eventually(context.db, [("given_up", PATIENT.most, "answered 503")] * 2)
        clock.move(days=2)
        await one.finds_nothing()
    assert len(receiver.deliveries) == 2 * PATIENT.most
    [incident] = (await admin.get("/v1/incidents")).json()["incidents"]
    assert (incident["kind"], incident["key"], incident["count"]) == ("webhook_given_up", one.endpoint, 2)
    assert incident["content"]["reason"] == "answered 503"
    assert DAY < sum(BACKOFF.seconds(attempts, 0) for attempts in range(1, PATIENT.most)) < 1.1 * DAY


async def test_an_endpoint_that_is_gone_is_told_nothing_more_until_an_admin_has_seen_to_it(
    context: Context, receiver: Receiver, notifying: Notifying, admin: AsyncClient, clock: MovedClock
) -> None:
    receiver.answers.append(status(410))
    await tell(context)
    async with notifying(receiver.url.replace("//", "//user:password@") + "?key=secret") as one:
        await eventually(context.db, [(None, 0, "answered 410")])
        await tell(context)
        clock.move(days=2)
        await one.finds_nothing()
        assert len(receiver.deliveries) == 1
        [incident] = (await admin.get("/v1/incidents")).json()["incidents"]
        assert (incident["kind"], incident["key"]) == ("webhook_endpoint_disabled", receiver.url)
        await admin.post(f"/v1/incidents/{incident['id']}/resolve")
        await eventually(context.db, [("delivered", 1, None)] * 2)


async def test_one_that_hangs_or_never_ends_keeps_its_own_place_only(
    context: Context, receiver: Receiver, notifying: Notifying
) -> None:
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 40_000
    trickling = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n1"
    receiver.answers.extend([None, endless, trickling])
    await tell(context, 30)
    async with notifying(attempts=replace(PATIENT, timeout_seconds=4)):
        await receiver.received(30)
        late = "no answer within 4 seconds"
        await eventually(context.db, [("delivered", 1, None)] * 29 + [(None, 1, late)])


async def test_two_control_planes_share_the_work(context: Context, receiver: Receiver, notifying: Notifying) -> None:
    async with notifying(), notifying(), notifying():
        await tell(context, 60)
        await eventually(context.db, [("delivered", 1, None)] * 60)
    assert len(receiver.deliveries) == 60


async def test_what_a_killed_control_plane_had_taken_is_sent_by_another(
    context: Context, receiver: Receiver, notifying: Notifying, clock: MovedClock
) -> None:
    receiver.answers.append(None)
    await tell(context)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(notifying())
        await receiver.received(1)
    async with notifying() as one:
        await one.finds_nothing()
        assert len(receiver.deliveries) == 1, "it may still be under way"
        clock.move(seconds=61)
        await eventually(context.db, [("delivered", 2, None)])
    assert len({each.id for each in receiver.deliveries}) == 1


async def test_once_the_settings_name_another_endpoint_the_one_that_is_gone_is_no_incident_any_more(
    context: Context, receiver: Receiver, notifying: Notifying, admin: AsyncClient
) -> None:
    receiver.answers.append(status(410))
    await tell(context)
    async with notifying(receiver.url + "/old"):
        await eventually(context.db, [(None, 0, "answered 410")])
    assert len((await admin.get("/v1/incidents", params={"status": "open"})).json()["incidents"]) == 1
    async with notifying():
        await eventually(context.db, [("delivered", 1, None)])
    assert not (await admin.get("/v1/incidents", params={"status": "open"})).json()["incidents"]


async def test_what_was_given_up_is_sent_when_an_admin_says_so(
    context: Context, receiver: Receiver, notifying: Notifying, admin: AsyncClient
) -> None:
    receiver.answers.extend([status(500)] * 3)
    await tell(context, 3)
    async with notifying(attempts=replace(PATIENT, most=1)):
        await eventually(context.db, [("given_up", 1, "answered 500")] * 3)
        await tell(context)
        await eventually(context.db, [("given_up", 1, "answered 500")] * 3 + [("delivered", 1, None)])
        given_up = (await admin.get("/v1/notifications", params={"state": "given_up"})).json()["notifications"]
        assert {(n["body"]["data"]["n"], n["attempts"], n["last_error"]) for n in given_up} == {
            (n, 1, "answered 500") for n in range(3)
        }
        assert (await admin.post("/v1/notifications/resend")).json() == {"resent": 3}
        await eventually(context.db, [("delivered", 1, None)] * 4)
        assert (await admin.post("/v1/notifications/resend")).json() == {"resent": 0}
    assert {each.id for each in receiver.deliveries[4:]} == {n["id"] for n in given_up}
    async with context.db.connection() as connection:
        row = await connection.fetchrow("SELECT actor, after FROM audit_journal WHERE action = 'notifications.resent'")
    assert tuple(row) == ("admin", {"count": 3})


async def test_why_each_attempt_failed_is_kept_and_one_is_sent_again_under_its_id(
    context: Context, receiver: Receiver, notifying: Notifying, admin: AsyncClient, clock: MovedClock
) -> None:
    receiver.answers.extend([status(503), status(500)])
    await tell(context)
    async with notifying(attempts=replace(PATIENT, most=2)):
        await eventually(context.db, [(None, 1, "answered 503")])
        clock.move(seconds=BACKOFF.seconds(1, 1))
        await eventually(context.db, [("given_up", 2, "answered 500")])
        [listed] = (await admin.get("/v1/notifications")).json()["notifications"]
        path = f"/v1/notifications/{listed['id']}"
        shown = (await admin.get(path)).json()
        assert [(each["attempt"], each["error"]) for each in shown["failed_attempts"]] == [
            (2, "answered 500"),
            (1, "answered 503"),
        ]
        assert (await admin.post(f"{path}/resend")).json() == {"resent": 1}
        await eventually(context.db, [("delivered", 1, None)])
    assert {each.id for each in receiver.deliveries} == {listed["id"]}
    assert len((await admin.get(path)).json()["failed_attempts"]) == 2
    for method, suffix in (("GET", ""), ("POST", "/resend")):
        assert (await admin.request(method, f"/v1/notifications/{uuid4()}{suffix}")).status_code == 404


async def test_notifications_are_shown_to_admins_page_by_page(
    context: Context, admin: AsyncClient, nobody: AsyncClient, token_of: TokenOf
) -> None:
    org = {"authorization": f"Bearer {token_of('acme')}"}
    assert (await nobody.get("/v1/notifications", headers=org)).status_code == 403
    assert (await nobody.post("/v1/notifications/resend", headers=org)).status_code == 403
    await tell(context, 5)
    first = (await admin.get("/v1/notifications", params={"limit": 3})).json()
    second = (await admin.get("/v1/notifications", params={"limit": 3, "before": first["next"]})).json()
    listed = first["notifications"] + second["notifications"]
    assert [n["body"]["data"]["n"] for n in listed] == [4, 3, 2, 1, 0]
    assert {(n["state"], n["attempts"], n["ended_at"]) for n in listed} == {("pending", 0, None)}
    assert second["next"] is None


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("{url: ftp://example.com, secret: SECRET}", "must start with https:// or http://"),
        ("{url: 'https://', secret: SECRET}", "must name a host"),
        ("{url: 'https://example.com', secret: abc}", "must be whsec_ and the base64 of 24 to 64 bytes"),
        ("{url: 'https://example.com', secret: whsec_YWJj}", "must be whsec_ and the base64 of 24 to 64 bytes"),
        ("{url: 'https://example.com', secret: whsec_!!!}", "must be whsec_ and the base64 of 24 to 64 bytes"),
    ],
)
def test_a_wrong_endpoint_or_secret_stops_the_start_and_is_named(lines: str, message: str) -> None:
    text = f"""
postgres: {{dsn: "postgresql://h/d"}}
redis: {{url: "redis://h"}}
admin_token: {uuid4()}
notifications: {lines.replace("SECRET", SECRET)}
"""
    with pytest.raises(SettingsError, match=r"control\.yaml:5: notifications") as raised:
        parse("control.yaml", text, Settings, {})
    assert message in str(raised.value)
    assert "YWJj" not in str(raised.value)
