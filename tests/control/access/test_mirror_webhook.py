"""`POST /api/webhooks/clerk`: what is believed, and what an event names."""

from typing import Any

import pytest
from httpx import AsyncClient, Response
from pydantic import SecretStr

from control.access.people.mirror.objects import Kind, Subject, person_of, subject_of
from control.http.context import Context
from control.settings.control_plane import Clerk as ClerkSettings
from control.settings.control_plane import Settings
from tests.control.access.clerk import OTHER_SECRET, SECRET, Clerk, Event, signed
from tests.control.access.mirrored import HOOK, Mirrored, clerk, mirrored, mirroring, new, started
from tests.control.plane import MovedClock

__all__ = ["clerk", "mirrored"]


async def posted(mirrored: Mirrored, event: Event, headers: dict[str, str], body: bytes | None = None) -> Response:
    return await mirrored.client.post(HOOK, content=event.body if body is None else body, headers=headers)


async def test_what_clerk_did_not_sign_is_refused(mirrored: Mirrored, clerk: Clerk, clock: MovedClock) -> None:
    [event] = clerk.set_user(new("user"), None)
    good = signed(event, clock.now)
    wrong = {
        "other secret": signed(event, clock.now, OTHER_SECRET),
        "too old": signed(event, clock.now - 301),
        "of the future": signed(event, clock.now + 301),
        "other id": {**good, "svix-id": "msg_other"},
        "other time": {**good, "svix-timestamp": str(int(clock.now) - 1)},
        "no signature": {**good, "svix-signature": ""},
        "another version": {**good, "svix-signature": good["svix-signature"].replace("v1,", "v2,")},
        "cut": {**good, "svix-signature": good["svix-signature"][:-1]},
        "no number": {**good, "svix-timestamp": "now"},
        "no id": {name: value for name, value in good.items() if name != "svix-id"},
    }
    for name, headers in wrong.items():
        answer = await posted(mirrored, event, headers)
        assert answer.status_code == 400, name
        assert SECRET[6:20] not in answer.text
    assert (await posted(mirrored, event, good, event.body + b" ")).status_code == 400
    for body in (b"", b"[]", b"{", b'{"type":1}', b"\xff", b"[" * 10_000):
        odd = Event("x", {})
        odd_signed = _signed_body(odd, body, clock.now)
        assert (await posted(mirrored, odd, odd_signed, body)).status_code == 400, body[:10]
    await mirrored.settle()
    assert clerk.asked == []
    assert (await posted(mirrored, event, good)).status_code == 200


def _signed_body(event: Event, body: bytes, at: float) -> dict[str, str]:
    class Raw(Event):
        @property
        def body(self) -> bytes:
            return body

    return signed(Raw(event.type, event.data, event.id), at)


async def test_of_two_secrets_either_one_is_good_and_a_delivery_may_carry_both(
    settings: Settings, clerk: Clerk, clock: MovedClock, context: Context
) -> None:
    async with started(mirroring(settings, clerk, webhook_secret=[SECRET, OTHER_SECRET]), clock) as it:
        for secrets in ((SECRET,), (OTHER_SECRET,), (SECRET, OTHER_SECRET)):
            [event] = clerk.set_user(new("user"), None)
            assert (await posted(it, event, signed(event, clock.now, *secrets))).status_code == 200


async def test_without_a_secret_there_is_no_such_endpoint(
    settings: Settings, clerk: Clerk, clock: MovedClock, context: Context, nobody: AsyncClient
) -> None:
    [event] = clerk.set_user(new("user"), None)
    headers = signed(event, clock.now)
    assert (await nobody.post(HOOK, content=event.body, headers=headers)).status_code == 404
    async with started(mirroring(settings, clerk, webhook_secret=""), clock) as it:
        assert (await posted(it, event, headers)).status_code == 404
        await it.look_at_everything()
        assert event.data["id"] in await it.state([event.data["id"]], []), "it is looked at all the same"


@pytest.mark.parametrize(
    ("event", "subject"),
    [
        ({"type": "user.updated", "data": {"id": "user_1"}}, Subject(Kind.USER, "user_1")),
        ({"type": "organization.deleted", "data": {"id": "org_1"}}, Subject(Kind.ORGANIZATION, "org_1")),
        (
            {"type": "organizationMembership.created", "data": {"organization": {"id": "org_1"}}},
            Subject(Kind.ORGANIZATION, "org_1"),
        ),
        ({"type": "session.created", "data": {"id": "sess_1"}}, None),
        ({"type": "user.updated", "data": {"id": "a b"}}, None),
        ({"type": "user.updated", "data": {"id": 7}}, None),
        ({"type": "organizationMembership.created", "data": {"organization": "org_1"}}, None),
        ({"type": "user.updated", "data": None}, None),
        ({"type": "organization.created", "data": {"id": "x" * 500}}, None),
    ],
)
def test_an_event_names_one_object_or_none(event: dict[str, Any], subject: Subject | None) -> None:
    assert subject_of(event) == subject


def test_names_and_addresses_that_cannot_be_stored_are_left_out() -> None:
    user = {
        "id": "user_1",
        "first_name": "A\x00\ud800",
        "last_name": 7,
        "email_addresses": [{"id": "1", "email_address": "no"}],
    }
    assert (person_of({**user, "primary_email_address_id": "1"}).email, person_of(user).name) == (None, "A")


def test_the_settings_refuse_what_is_no_key_of_clerks() -> None:
    for content in ({"secret_key": "pk_test_x"}, {"webhook_secret": "secret"}, {"roles": {"org:boss": "boss"}}):
        with pytest.raises(ValueError, match=r"must|Input"):
            ClerkSettings.model_validate(content)
    assert ClerkSettings(secret_key=SecretStr("")).enabled is False
