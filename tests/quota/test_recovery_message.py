"""The promise: what a control plane of any release asks of gateways of any release is understood, and counted once."""

import pytest

from quota.recovery_message import RecoveryMessage


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("0123", RecoveryMessage("0123")),
        ("!0123", RecoveryMessage("0123", fences=True)),
        ("!0123 4,17", RecoveryMessage("0123", fences=True, shards=(4, 17))),
        ("!0123:9", RecoveryMessage("0123", fences=True, over=9)),
        ("!0123:9 4,17", RecoveryMessage("0123", fences=True, over=9, shards=(4, 17))),
    ],
)
def test_a_message_is_read_as_it_was_meant(text: str, meant: RecoveryMessage) -> None:
    assert (RecoveryMessage.parse(text), meant.text) == (meant, text)


def test_a_worker_that_reports_again_on_another_connection_counts_once() -> None:
    asked = RecoveryMessage("0123", fences=True, over=9)
    assert asked.ended(["t 1", asked.end("a"), asked.end("b"), asked.end("a"), "end !0123:8 c"]) == (
        0,
        frozenset({"a", "b"}),
    )


def test_workers_of_a_release_that_does_not_name_them_count_each() -> None:
    asked = RecoveryMessage("0123", fences=True, over=9, shards=(1, 2))
    assert asked.ended([f"end {asked.text}", f"end {asked.text}", asked.end("a")]) == (2, frozenset({"a"}))


def test_a_control_plane_that_says_no_epoch_is_answered_as_it_expects() -> None:
    assert RecoveryMessage.parse("!0123").end("a") == "end !0123"
