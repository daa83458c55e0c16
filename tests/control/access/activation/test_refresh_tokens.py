"""Families of refresh tokens, as a table of what can be shown and what it is then; no database."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.access.activation import refresh_tokens
from control.access.activation.refresh_tokens import Family, RefreshToken, Standing, TokenMalformed, begin, read

GRACE = 60.0
PARENT = b"a code, or a token of another family"


def chain(length: int, *, attempt: str | None = None) -> tuple[Family, list[RefreshToken]]:
    """A family and all of its tokens; one second lies between two of them."""
    family = begin(PARENT, None, 0.0)
    tokens = [family.current(PARENT)]
    for at in range(1, length):
        family = family.rotate(tokens[-1], attempt, float(at))
        tokens.append(family.current(tokens[-1].secret))
    return family, tokens


@pytest.mark.parametrize(
    ("back", "after_seconds", "standing"),
    [
        (0, 0, Standing.CURRENT),
        (0, 1e9, Standing.CURRENT),
        (1, 0, Standing.REPEATED),
        (1, GRACE, Standing.REPEATED),
        (1, GRACE + 1, Standing.REUSED),
        (2, 0, Standing.REUSED),
        (3, 0, Standing.REUSED),
    ],
)
def test_only_the_parent_is_excused_and_only_within_the_grace(
    back: int, after_seconds: float, standing: Standing
) -> None:
    family, tokens = chain(4)
    assert family.judge(tokens[-1 - back], None, family.rotated_at + after_seconds, GRACE) is standing


def test_django_oauth_toolkit_1617_the_first_token_is_dead_once_there_is_a_third() -> None:
    """https://github.com/django-oauth/django-oauth-toolkit/issues/1617: a grace by time alone lets R1 live after R3."""
    family, tokens = chain(3)
    assert family.judge(tokens[0], None, family.rotated_at, GRACE) is Standing.REUSED


def test_a_lost_reply_is_given_again_and_it_is_the_same_successor() -> None:
    family, tokens = chain(5)
    assert family.current(tokens[-2].secret) == tokens[-1]
    assert family.judge(tokens[-2], None, family.rotated_at + 1, GRACE) is Standing.REPEATED


def test_an_attempt_that_was_written_down_is_repeated_long_after_the_grace_and_by_nobody_else() -> None:
    family, tokens = chain(4, attempt="a1")
    late = family.rotated_at + 30 * 86_400
    assert family.judge(tokens[-2], "a1", late, GRACE) is Standing.REPEATED
    for other in (None, "a2", ""):
        assert family.judge(tokens[-2], other, late, GRACE) is Standing.REUSED
    assert family.judge(tokens[-3], "a1", late, GRACE) is Standing.REUSED


def test_a_successor_cannot_be_computed_from_its_parent() -> None:
    family, tokens = chain(2)
    assert family.rotate(tokens[-1], None, 9.0).digest != family.rotate(tokens[-1], None, 9.0).digest


def test_nothing_that_is_stored_is_a_secret() -> None:
    family, tokens = chain(6)
    stored = family.tag_key + family.digest + family.salt
    assert not any(token.secret in stored for token in tokens)


def test_a_made_up_token_is_foreign_whatever_generation_it_claims() -> None:
    family, tokens = chain(4)
    for generation in (1, 3, 4, 5, 10**17):
        for secret in (tokens[-1].secret, b"x" * 32):
            for tag in (tokens[-1].tag, b"y" * 16):
                made_up = RefreshToken(family.id, generation, secret, tag)
                if made_up != tokens[-1]:
                    assert family.judge(made_up, None, 5.0, GRACE) is Standing.FOREIGN


def test_a_token_of_another_family_is_foreign() -> None:
    family, _ = chain(3)
    _, others = chain(3)
    for token in others:
        assert family.judge(replace(token, family=family.id), None, 3.0, GRACE) is Standing.FOREIGN


@given(st.lists(st.tuples(st.integers(0, 6), st.floats(0, 200)), max_size=40))
def test_whatever_is_shown_in_whatever_order_one_successor_lives_and_reuse_is_seen(
    shown: list[tuple[int, float]],
) -> None:
    """Each step shows the token that is so many generations back, so long after the step before."""
    family, now = begin(PARENT, None, 0.0), 0.0
    tokens = [family.current(PARENT)]
    for back, seconds in shown:
        now += seconds
        token = tokens[max(0, len(tokens) - 1 - back)]
        standing = family.judge(token, None, now, GRACE)
        back = min(back, len(tokens) - 1)
        if back == 0:
            assert standing is Standing.CURRENT
            family = family.rotate(token, None, now)
            tokens.append(family.current(token.secret))
        elif back == 1 and now - family.rotated_at <= GRACE:
            assert standing is Standing.REPEATED
            assert family.current(token.secret) == tokens[-1]
        else:
            assert standing is Standing.REUSED
        assert len({each.text for each in tokens}) == len(tokens) == family.generation


@given(st.integers(1, 10**17), st.binary(min_size=32, max_size=32), st.binary(min_size=16, max_size=16))
def test_a_token_is_read_as_it_was_written(generation: int, secret: bytes, tag: bytes) -> None:
    token = RefreshToken("a" * refresh_tokens.FAMILY_CHARACTERS, generation, secret, tag)
    assert read(token.text) == token
    assert len(token.text) <= refresh_tokens.TEXT_CHARACTERS_MAX


@given(st.text(max_size=120))
def test_what_is_no_refresh_token_is_refused_without_a_fault(text: str) -> None:
    with pytest.raises(TokenMalformed):
        read(text)
