"""The text of a generation, and that of all shards' epochs."""

import pytest

from quota import generation


def test_each_shard_has_the_epoch_in_which_it_was_vouched_for() -> None:
    held = {0: b"a:5:n", 1: b"a:7:n", 2: None, 3: b"a:n"}
    assert generation.epochs_on(b"a", held) == {0: 5, 1: 7, 3: 0}
    assert generation.epochs_on(b"a", held | {4: b"b:9:n"}) is None
    assert generation.epochs_on(b"a", held | {4: b"-n"}) is None


@pytest.mark.parametrize("epochs", [[4, 4, 4], [4, 5, 4]])
def test_epochs_are_read_as_they_were_written(epochs: list[int]) -> None:
    assert generation.epochs_from(generation.epochs_text(epochs), 3) == epochs
    assert generation.epochs_text([4, 4, 4]) == "4", "as gateways of earlier releases read it"


@pytest.mark.parametrize("text", ["", "-", "1,2", "1,2,3,4", "1,,3", "\u0663", "1,-2,3"])
def test_what_does_not_say_the_epochs_of_all_shards_says_nothing(text: str) -> None:
    assert generation.epochs_from(text, 3) is None
