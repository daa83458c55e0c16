"""Words by which organizations are found."""

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.directory.terms import folded, key_start, question, terms, trigrams

FOUND = [
    ("acme", "org-7", "Acme & Söhne GmbH"),
    ("ACME sohne", "org-7", "Acme & Söhne GmbH"),
    ("org-7", "org-7", "x"),
    ("o'rei", "org-7", "O'Reilly Media"),
    ("reilly", "org-7", "O'Reilly Media"),
    ("strasse", "org-7", "Straße 7"),
    ("a\\b", "org-7", "A\\B"),
    ("日本", "org-7", "日本 電気"),
]


async def matches(dsn: str, text: str, held: list[str]) -> bool:
    """Whether a text finds who has these words."""
    asked = question(text)
    if asked is None:
        return False
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute("CREATE TEMPORARY TABLE t (terms tsvector, trigrams tsvector) ON COMMIT DROP")
            row = "INSERT INTO t VALUES (array_to_tsvector($1::text[]), array_to_tsvector($2::text[]))"
            await connection.execute(row, held, trigrams(held))
            found = bool(await connection.fetchval("SELECT terms @@ $1::text::tsquery FROM t", asked.begin))
            if asked.inside is not None:
                inside = "SELECT trigrams @@ $1::text::tsquery AND words_hold(terms, $2::text[])"
                inside += " AND ($3::text IS NULL OR terms @@ $3::text::tsquery) FROM t"
                found |= bool(await connection.fetchval(inside, asked.inside, asked.patterns, asked.short))
            return found
    finally:
        await connection.close()


@pytest.mark.parametrize(("text", "org", "name"), FOUND)
async def test_beginnings_of_words_find_an_organization_without_case_and_accents(
    postgres_dsn: str, text: str, org: str, name: str
) -> None:
    assert await matches(postgres_dsn, text, terms(org, name, [], []))


@pytest.mark.parametrize("text", ["ada@acme.example", "ada@", "acme.example", "lovelace", "cus_Ab1", "CUS_AB"])
async def test_addresses_their_domains_and_customers_find_it(postgres_dsn: str, text: str) -> None:
    held = terms("org-7", "x", ["ada@acme.example", "a.lovelace@other.example"], ["cus_Ab12"])
    assert await matches(postgres_dsn, text, held)


async def test_all_words_must_be_there(postgres_dsn: str) -> None:
    held = terms("org-7", "Acme Foods", [], [])
    assert not await matches(postgres_dsn, "acme motors", held)


@pytest.mark.parametrize(
    ("text", "finds"),
    [
        ("cme", True),
        ("ötor", True),
        ("acme otor", True),
        ("otor cme", True),
        ("ac otor", True),
        ("g-7", True),
        ("velace@oth", True),
        ("us_ab1", True),
        ("cm", False),
        ("cme foods", False),
        ("me otor", False),
        ("%", False),
        ("cm_m", False),
        ("c%e", False),
        ("rotom", False),
        ("motorsmot", False),
    ],
)
async def test_what_is_inside_of_words_finds_it_from_three_characters_on(
    postgres_dsn: str, text: str, finds: bool
) -> None:
    held = terms("org-7", "Acme Mötors", ["a.lovelace@other.example"], ["cus_Ab12"])
    assert await matches(postgres_dsn, text, held) is finds


async def test_the_same_characters_in_another_order_are_not_found(postgres_dsn: str) -> None:
    """Each three of them are there."""
    assert not await matches(postgres_dsn, "abcabd", terms("org-7", "xabcay xcabdz xbcab", [], []))


@given(st.lists(st.text(), max_size=4).map(" ".join))
def test_no_text_is_anything_but_words_of_a_query(text: str) -> None:
    asked = question(text)
    if asked is None:
        assert folded(text).split() == []
        return
    rest = asked.begin
    for word in folded(text).split()[:8]:
        quoted = "'" + word[:200].replace("\\", "\\\\").replace("'", "''") + "':*"
        assert rest.startswith(quoted)
        rest = rest.removeprefix(quoted).removeprefix(" & ")
    assert rest == ""


@pytest.mark.parametrize(
    "text", ["'", "''", "\\", "\\'", "a':* | 'b", "!a", "(a", "a:*", "<->", "'; DROP TABLE organization; --"]
)
async def test_what_postgres_could_take_for_an_operator_is_a_word(postgres_dsn: str, text: str) -> None:
    held = terms("org-7", text, [], [])
    assert await matches(postgres_dsn, text, held)
    assert not await matches(postgres_dsn, text, terms("org-8", "b", [], []))


@pytest.mark.parametrize(
    ("text", "start"), [("qg_live_12", "qg_live_12"), (" Ab12 ", "Ab12"), ("abc", None), ("a b c d", None)]
)
def test_what_may_begin_a_key_is_looked_for_among_keys(text: str, start: str | None) -> None:
    assert key_start(text) == start
