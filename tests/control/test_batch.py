from datetime import UTC, datetime

import pytest

from control.ledger.event_batch import EventBatch
from control.ledger.streams import StreamId


def entry(entry_id: str, text: str) -> tuple[bytes, list[bytes]]:
    return entry_id.encode(), [b"e", text.encode()]


def test_one_row_for_each_meter_of_each_event_and_counters_that_add_up() -> None:
    batch = EventBatch()
    batch.add(
        3,
        [
            entry("1795305600123-0", "t r1 acme 1793491200 api_calls:10:2:g1=3,g2=1 tokens:7"),
            entry("1795305600123-1", "s r1 acme 1793491200 api_calls:-3:-2:g2=-1"),
            entry("1795305600200-0", "t r2 globex 1793491200 tokens:1"),
        ],
    )
    at = datetime(2026, 11, 22, 0, 0, 0, 123_000, UTC)
    starts = datetime(2026, 11, 1, tzinfo=UTC)
    nobody = (None, None, None)
    assert batch.rows[:3] == [
        ("acme", at, 0, "api_calls", 3, 1795305600123, "take", "r1", starts, 10, 2, {"g1": 3, "g2": 1}, *nobody),
        ("acme", at, 0, "tokens", 3, 1795305600123, "take", "r1", starts, 7, 0, None, *nobody),
        ("acme", at, 1, "api_calls", 3, 1795305600123, "settle", "r1", starts, -3, -2, {"g2": -1}, *nobody),
    ]
    assert batch.usage == {
        ("acme", 1793491200, "api_calls"): [7, 3, 0],
        ("acme", 1793491200, "tokens"): [7, 0, 0],
        ("globex", 1793491200, "tokens"): [1, 0, 0],
    }
    assert batch.grants == {("acme", "g1"): 3, ("acme", "g2"): 0}
    assert batch.watermarks == {3: StreamId(1795305600200, 0)}
    assert batch.days == {1795305600 // 86_400}


@pytest.mark.parametrize(
    ("poison", "reason"),
    [
        (entry("5-0", "nonsense"), "an event must have"),
        (entry("5-0", "t r acmé 0 api_calls:1"), "ascii"),
        ((b"5-0", [b"x", b"t r acme 0 api_calls:1"]), "one field"),
        ((b"5-0", [b"e", b"t r acme 0 api_calls:1", b"x", b"1"]), "one field"),
        (entry("5-9999999999", "t r acme 0 api_calls:1"), "out of range"),
        (entry("999999999999999-0", "t r acme 0 api_calls:1"), "out of range"),
    ],
)
def test_what_is_no_event_is_put_aside_with_the_reason_and_stops_nothing(
    poison: tuple[bytes, list[bytes]], reason: str
) -> None:
    batch = EventBatch()
    batch.add(0, [entry("4-0", "t r1 acme 0 api_calls:1"), poison])
    assert len(batch.rows) == 1
    [aside] = batch.quarantined
    assert reason in aside.reason
    assert batch.watermarks == {0: StreamId.parse(poison[0])}
