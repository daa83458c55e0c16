"""Whom Sentinels name: the newest configuration that a majority knows of, and nobody where they cannot tell."""

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from common.redis_sentinel import NoView, Primary, View, decide, disagreement, two_primaries
from quota.ledger import UnsupportedServer

ONE, OTHER = Primary("10.0.0.1", 6379), Primary("10.0.0.2", 6379)


def away(sentinel: str) -> NoView:
    return NoView(sentinel, "Connection refused", for_good=False)


def test_a_majority_that_agrees_names_the_primary_though_another_sentinel_is_away() -> None:
    assert decide("main", 3, [View("a", ONE, 4), View("b", ONE, 4), away("c")]) == ONE


def test_the_newest_configuration_is_followed_before_the_others_have_heard_of_it() -> None:
    assert decide("main", 3, [View("a", ONE, 4), View("b", OTHER, 5), View("c", ONE, 4)]) == OTHER


@pytest.mark.parametrize("answers", [[], [View("a", ONE, 4)], [View("a", ONE, 4), away("b"), away("c")]])
def test_less_than_a_majority_names_nobody_since_there_may_have_been_a_failover(
    answers: list[View | NoView],
) -> None:
    with pytest.raises(RedisConnectionError, match="of 3 Sentinels name the primary main, and 2 must"):
        decide("main", 3, answers)


def test_sentinels_that_disagree_are_told_by_name_and_nobody_is_named() -> None:
    with pytest.raises(UnsupportedServer) as told:
        decide("main", 3, [View("a", ONE, 4), View("b", OTHER, 4), View("c", ONE, 4)])
    assert str(told.value) == (
        "the Sentinels disagree who the primary main is: "
        "a names 10.0.0.1:6379; b names 10.0.0.2:6379; c names 10.0.0.1:6379"
    )


def test_a_setting_that_is_wrong_for_most_of_them_is_told_by_name_and_for_one_of_them_passed_over() -> None:
    wrong = [NoView(each, f"the Sentinel {each} knows no primary main", for_good=True) for each in "ab"]
    with pytest.raises(UnsupportedServer, match="the Sentinel a knows no primary main; the Sentinel b knows"):
        decide("main", 3, [*wrong, View("c", ONE, 4)])
    assert decide("main", 3, [wrong[0], View("b", ONE, 4), View("c", ONE, 4)]) == ONE


def test_sentinels_that_name_one_primary_agree_whatever_the_number_of_its_configuration() -> None:
    assert disagreement("main", [View("a", ONE, 4), View("b", ONE, 5), away("c")]) is None
    assert disagreement("main", [View("a", ONE, 4), View("b", OTHER, 5)]) is not None
    assert disagreement("main", [away("a"), away("b")]) is None


def test_sentinels_with_another_quorum_each_disagree() -> None:
    views = [View("a", ONE, 4, quorum=2), View("b", ONE, 4, quorum=3)]
    assert disagreement("main", views) == ("the Sentinels disagree on the quorum of the primary main: a has 2; b has 3")


def test_a_server_that_says_that_it_is_a_primary_beside_the_one_that_is_named_is_told() -> None:
    assert two_primaries([away("a"), View("b", ONE, 4)]) is None
    told = two_primaries([View("a", ONE, 4), View("b", ONE, 4, others=(OTHER,))])
    assert told is not None
    assert told.startswith("there are two primaries: the Sentinels name 10.0.0.1:6379, and 10.0.0.2:6379 says that")
