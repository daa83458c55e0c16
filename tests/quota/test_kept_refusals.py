"""A batch of kept refusals as text: what was written is read, and anything else is refused."""

import pytest

from quota.kept_refusals import Batch, BatchMalformed, Refused, decision_of, decode, encode, words_of
from quota.model import (
    ConcurrencyLimited,
    Decision,
    Exhausted,
    Level,
    MeterBalance,
    NotEntitled,
    NotInPlan,
    RateLimited,
    Stale,
    Status,
    Unknown,
)
from quota.periods import Period

PERIOD = Period(1_793_491_200, 1_796_083_200)
NOW_US = 1_795_391_049_925_001
DECISIONS = (
    Exhausted(PERIOD, NOW_US, MeterBalance("api_calls", 100, 3, 7), over_limit=False),
    Exhausted(PERIOD, NOW_US, MeterBalance("api_calls", 5, 0, 0), over_limit=True, level=Level.KEY),
    RateLimited(PERIOD, NOW_US, 1500, 142_857.25, 428_571.75),
    RateLimited(PERIOD, NOW_US, 1500, 100_000.0, 300_000.0, Level.KEY),
    ConcurrencyLimited(PERIOD, NOW_US, 4),
    NotEntitled(Status.SUSPENDED),
    NotInPlan("tokens"),
    Stale(42),
    Unknown(lapsed=True),
)


def refused(decision: Decision | None = None) -> Refused:
    return Refused(
        "a1b2c3d4e50000000001",
        "order-7",
        NOW_US,
        "acme",
        "keyNumberOne",
        "Ünal",
        "api",
        "POST",
        429,
        "exhausted",
        False,
        "The request costs 5.",
        {"tokens": 5, "api_calls": 1},
        42,
        "k:keyNumberOne api_calls=3600:100",
        words_of(decision),
    )


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda decision: type(decision).__name__)
def test_what_the_ledger_said_comes_back_as_it_was(decision: Decision) -> None:
    batch = Batch("12-ab", "gw1", 3, 700, {"acme": 500, "": 2}, (refused(decision), refused()))
    read = decode(encode(batch))
    assert read == batch
    assert list(read.refusals[0].charges) == ["tokens", "api_calls"]
    assert decision_of(read.refusals[0].said) == decision
    assert decision_of(read.refusals[1].said) is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'["a","b",1,2]',
        b'["a","b",1,2,{"acme":"x"}]',
        b'["a","b",1,2,{}]\n[1]',
        encode(Batch("a", "b", 1, 1, {}, (refused()._replace(status="429"),))),  # type: ignore[arg-type]  # on purpose
        encode(Batch("a", "b", 1, 1, {}, (refused()._replace(charges=[]),))),  # type: ignore[arg-type]  # on purpose
    ],
)
def test_what_is_no_batch_is_refused_in_words(text: bytes) -> None:
    with pytest.raises(BatchMalformed, match=r"not a batch|a refusal has"):
        decode(text)


@pytest.mark.parametrize(
    "said",
    [{"is": "gone"}, {"is": "exhausted"}, {"is": "not_entitled", "status": "x"}, {"is": "rate_limited", "period": 1}],
)
def test_what_no_ledger_says_is_refused_in_words(said: dict[str, object]) -> None:
    with pytest.raises(BatchMalformed, match="not what a ledger says"):
        decision_of(said)
