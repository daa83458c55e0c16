"""Words by which organizations are found."""

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.directory.terms import folded, key_start, question, terms

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


async def matches(dsn: str, asked: str, held: list[str]) -> bool:
    connection = await asyncpg.connect(dsn)
    try:
        return bool(await connection.fetchval("SELECT array_to_tsvector($1::text[]) @@ $2::text::tsquery", held, asked))
    finally:
        await connection.close()


@pytest.mark.parametrize(("text", "org", "name"), FOUND)
async def test_beginnings_of_words_find_an_organization_without_case_and_accents(
    postgres_dsn: str, text: str, org: str, name: str
) -> None:
    asked = question(text)
    assert asked is not None
    assert await matches(postgres_dsn, asked, terms(org, name, [], []))


@pytest.mark.parametrize("text", ["ada@acme.example", "ada@", "acme.example", "lovelace", "cus_Ab1", "CUS_AB"])
async def test_addresses_their_domains_and_customers_find_it(postgres_dsn: str, text: str) -> None:
    held = terms("org-7", "x", ["ada@acme.example", "a.lovelace@other.example"], ["cus_Ab12"])
    assert await matches(postgres_dsn, question(text) or "", held)


async def test_all_words_must_be_there(postgres_dsn: str) -> None:
    held = terms("org-7", "Acme Foods", [], [])
    assert not await matches(postgres_dsn, question("acme motors") or "", held)
    assert not await matches(postgres_dsn, question("cme") or "", held)


@given(st.lists(st.text(), max_size=4).map(" ".join))
def test_no_text_is_anything_but_words_of_a_query(text: str) -> None:
    asked = question(text)
    if asked is None:
        assert folded(text).split() == []
        return
    rest = asked
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
    assert await matches(postgres_dsn, question(text) or "", held)
    assert not await matches(postgres_dsn, question(text) or "", terms("org-8", "b", [], []))


@pytest.mark.parametrize(
    ("text", "start"), [("qg_live_12", "qg_live_12"), (" Ab12 ", "Ab12"), ("abc", None), ("a b c d", None)]
)
def test_what_may_begin_a_key_is_looked_for_among_keys(text: str, start: str | None) -> None:
    assert key_start(text) == start
