from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from common.clock import system_clock
from quota import keys
from quota.access import encoded_user
from quota.events import FIELD, Charge, EventMalformed, Kind, UsageEvent, parse
from quota.ledger import Ledger
from quota.model import COST_MAX, Admitted, Entitlement, Grant, MeterLimit, OveragePolicy, Status
from quota.periods import monthly_periods
from tests import charging
from tests.expected import format_event
from tests.replies import as_entries

units = st.integers(-COST_MAX, COST_MAX)
grants = st.lists(st.tuples(st.from_regex(keys.GRANT_PATTERN, fullmatch=True), units), unique_by=lambda g: g[0]).map(
    tuple
)
charges = st.builds(Charge, st.from_regex(keys.METER_PATTERN, fullmatch=True), units, units, grants)
events = st.builds(
    UsageEvent,
    st.sampled_from(Kind),
    st.from_regex(r"[!-~]{1,200}", fullmatch=True),
    st.from_regex(keys.ORG_PATTERN, fullmatch=True).filter(keys.is_org),
    st.integers(0, 10**11 - 1),
    st.lists(charges, min_size=1, max_size=4, unique_by=lambda c: c.meter).map(tuple),
    user=st.none() | st.text(min_size=1, max_size=60).filter(lambda user: encoded_user(user) is not None),
    key=st.none() | st.from_regex(r"[A-Za-z0-9]{12}", fullmatch=True),
    at=st.none() | st.integers(0, 10**11 - 1),
)


@given(events)
def test_an_event_is_read_back_as_it_was_written(event: UsageEvent) -> None:
    assert parse(format_event(event)) == event


@given(events, st.text(max_size=5), st.data())
def test_a_damaged_event_is_parsed_whole_or_refused_as_malformed(
    event: UsageEvent, noise: str, data: st.DataObject
) -> None:
    text = format_event(event)
    at = data.draw(st.integers(0, len(text)))
    with suppress(EventMalformed):
        damaged = parse(text[:at] + noise + text[at + len(noise) :])
        assert parse(format_event(damaged)) == damaged


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "an event must have"),
        ("t r acme 0", "an event must have"),
        ("x r acme 0 api_calls:1", "kind"),
        ("t r\x00 acme 0 api_calls:1", "request id"),
        ("t r -acme 0 api_calls:1", "organization"),
        ("t r acme/ 0 api_calls:1", "path"),
        ("t r acme/k:short 0 api_calls:1", "path"),
        ("t r acme/u:%FF 0 api_calls:1", "user"),
        ("t r acme 0@ api_calls:1", "period"),
        ("t r acme 1.5 api_calls:1", "period"),
        ("t r acme 0 api_calls:1\n", "printable"),
        ("t r acme 0 api_calls:1 ", "a charge must be"),
        ("t r acme 0 api_calls", "a charge must be"),
        ("t r acme 0 api_calls:1e3", "a charge must be"),
        ("t r acme 0 api_calls:1:0:g", "grants must be"),
        ("t r acme 0 api_calls:1:0:g=1,g=1", "grants must be"),
        ("t r acme 0 api_calls:1 api_calls:2", "twice"),
        (f"t r acme 0 api_calls:{COST_MAX + 1}", "units must be"),
        (f"t r acme 0 api_calls:1:{COST_MAX + 1}", "units must be"),
    ],
)
def test_a_malformed_event_says_where(text: str, fault: str) -> None:
    with pytest.raises(EventMalformed, match=fault):
        parse(text)


async def test_what_the_scripts_append_is_what_is_parsed(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        ledger = Ledger(redis)
        periods = monthly_periods(0, system_clock())
        await ledger.publish(
            Entitlement(
                "acme",
                1,
                Status.ACTIVE,
                policy=OveragePolicy.METERED,
                meters=(MeterLimit("api_calls", 5), MeterLimit("tokens", 1000)),
                grants=(Grant("bonus", "api_calls", 3, periods[0].end),),
                periods=periods,
            )
        )
        decision = await charging.take(ledger, "acme", "r1", {"api_calls": 10, "tokens": 7})
        assert isinstance(decision, Admitted)
        await charging.settle(ledger, "acme", decision.receipt, {"api_calls": 4})
        entries = as_entries(await redis.xrange(keys.events_key(keys.shard_of("acme", ledger.shards))))
    start = periods[0].start
    assert [parse(fields[FIELD].decode()) for _, fields in entries] == [
        UsageEvent(Kind.TAKE, "r1", "acme", start, (Charge("api_calls", 10, 2, (("bonus", 3),)), Charge("tokens", 7))),
        UsageEvent(Kind.SETTLE, "r1", "acme", start, (Charge("api_calls", -6, -2, (("bonus", -3),)),)),
    ]
    assert parse(decision.receipt.decode()) == parse(entries[0][1][FIELD].decode())
