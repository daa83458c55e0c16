"""Numbers, money, times and forms, as people read and write them."""

from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from fastapi import Request
from pydantic import Field

from control.actions.catalogue import ACTIONS
from control.actions.form import fields_of
from control.console.frame import formats
from control.console.frame.forms import read_form
from control.console.frame.page_route import without_empty
from control.console.frame.rendering import address_with
from control.documents import Body
from quota.model import OveragePolicy


def test_what_the_ledger_calls_it_is_in_an_admins_words_on_pages() -> None:
    assert [formats.beyond(policy) for policy in OveragePolicy] == ["is refused", "is sold"]
    wanted = {"policy": "HARD_STOP", "overage_max": 5, "rate": None, "note": "HARD_STOP"}
    assert formats.named(wanted) == [("Policy", "hard stop"), ("Overage max", 5), ("Note", "HARD_STOP")]
    assert formats.stored_as("app_user") == "User"
    assert formats.stored_as("console_link.created_by") == "Console link, created by"
    options = [each for field in fields_of(ACTIONS["override"], {}) for each in field.options or ()]
    assert not [each.label for each in options if "_" in each.label or each.label.isupper()]


def test_what_stands_between_backticks_is_shown_as_code_and_escaped() -> None:
    assert formats.prose("Run `a <b>`, or `c`: 1 < 2.") == "Run <code>a &lt;b&gt;</code>, or <code>c</code>: 1 &lt; 2."
    assert formats.prose("") == ""


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (123450, "usd", "$1,234.50"),
        (-5, "eur", "\N{MINUS SIGN}€0.05"),
        (1234, "jpy", "¥1,234"),
        (1234, "kwd", "KWD 1.234"),
        (100, "chf", "CHF 1.00"),
        (16666.67, "usd", "$166.67"),
        (None, "usd", formats.NOTHING),
    ],
)
def test_money_has_the_digits_of_its_currency(minor: float | None, currency: str, text: str) -> None:
    assert formats.money(minor, currency) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (1234567, "1,234,567"), (-3, "\N{MINUS SIGN}3"), (1.5, "1.50"), (None, "\N{EN DASH}")],
)
def test_numbers_are_grouped(number: float | None, text: str) -> None:
    assert formats.count(number) == text


def test_large_numbers_have_a_short_form() -> None:
    assert [formats.short(n) for n in (999, 1000, 1250, 123_456, 1_200_000, 5 * 10**9)] == [
        "999",
        "1k",
        "1.2k",
        "123k",
        "1.2M",
        "5B",
    ]


def test_durations_have_two_units() -> None:
    assert [formats.duration(s) for s in (0.25, 0, 1, 61, 7200, 93_784, None)] == [
        "250 ms",
        "0 seconds",
        "1 second",
        "1 minute 1 second",
        "2 hours",
        "1 day 2 hours",
        formats.NOTHING,
    ]


def test_times_say_their_moment_to_machines_too() -> None:
    at = datetime(2026, 11, 30, 12, 3, tzinfo=UTC)
    assert formats.moment(at) == '<time datetime="2026-11-30T12:03:00+00:00">2026-11-30 12:03</time>'
    assert formats.day(date(2026, 1, 2)) == '<time datetime="2026-01-02">2026-01-02</time>'
    assert formats.moment(None) == formats.NOTHING


def test_an_address_keeps_what_is_not_changed() -> None:
    here = "/console/x?q=a+b&sort=name&after=7"
    assert address_with(here, {"after": None, "sort": "-name"}) == "/console/x?q=a+b&sort=-name"
    assert address_with("/console/x?after=7", {"after": None}) == "/console/x"
    assert address_with("/console/x", {"q": "&<b>"}) == "/console/x?q=%26%3Cb%3E"


@pytest.mark.parametrize(
    ("query", "left"),
    [
        (b"q=&plan=pro&status=", b"plan=pro"),
        (b"q=a+b%26&x=", b"q=a+b%26"),
        (b"q=a%FF", b"q=a%FF"),
        (b"", b""),
        (b"x=", b""),
    ],
)
def test_a_filter_that_is_left_empty_is_not_given(query: bytes, left: bytes) -> None:
    assert without_empty(query) == left


class Grant(Body):
    units: int = Field(ge=1)
    reason: str = Field(min_length=3)
    ends_at: datetime | None = None
    meters: dict[str, int] = Field(default_factory=dict)
    tags: list[str] = Field(default_factory=list)


async def filled(**fields: Any) -> Any:
    body = urlencode(fields, doseq=True).encode()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", b"application/x-www-form-urlencoded")]
    return await read_form(Request({"type": "http", "method": "POST", "headers": headers}, receive), Grant)


async def test_a_form_becomes_a_value() -> None:
    form = await filled(
        token="t", units="5", reason="because", ends_at="2026-11-30T10:00", tags=["a", "b"], **{"meters.calls": "3"}
    )
    assert form.errors == {}
    assert form.value == Grant(
        units=5, reason="because", ends_at=datetime(2026, 11, 30, 10, tzinfo=UTC), meters={"calls": 3}, tags=["a", "b"]
    )


async def test_what_is_wrong_is_said_by_field_and_what_was_typed_is_kept() -> None:
    form = await filled(token="t", units="many", reason="")
    assert form.value is None
    assert set(form.errors) == {"units", "reason"}
    assert form.errors["reason"] == "Fill this in."
    assert form.given == {"units": "many", "reason": ""}


async def test_a_field_that_the_form_has_not_is_refused() -> None:
    form = await filled(units="1", reason="because", amount="5")
    assert set(form.errors) == {"amount"}
