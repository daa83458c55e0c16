"""Words by which an organization is found, and the question that a text is. Pure.

PostgreSQL's own parser takes an address or a number with a sign for one word, and its dictionaries speak one language,
so words are made here: without case and accents, whole (`ada@example.com`, `org-12`) and in their parts. What is asked
for are words that begin so, or have it inside: each must be there. What is inside of words is found by all that three
characters in a row make of them (PostgreSQL's `pg_trgm` does the same, and is not everywhere), and then looked at.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

EMAILS_MAX: Final = 1_000  # of one organization: each is a word of its index entry
WORDS_MAX: Final = 8
TRIGRAMS_MAX: Final = 6  # that are looked for: each is a list of the index, and the words are looked at afterwards
WORD_CHARACTERS_MAX: Final = 200
INSIDE_CHARACTERS_MIN: Final = 3

_PART: Final = re.compile(r"[^\W_]+")
_KEY: Final = re.compile(r"[A-Za-z0-9_-]{4,}\Z")


def folded(text: str) -> str:
    """Without case and accents: `Söhne` is `sohne`."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(each for each in decomposed if not unicodedata.combining(each))


def terms(org: str, name: str, emails: Iterable[str], customers: Iterable[str]) -> list[str]:
    """The words of an organization, each once."""
    found: set[str] = set()
    for text in (org, name, *customers):
        found.update(_words(folded(text)))
    for email in map(folded, emails):
        found.update((email, email.rpartition("@")[2]), _PART.findall(email.rpartition("@")[0]))
    return sorted(word[:WORD_CHARACTERS_MAX] for word in found if word)


def trigrams(words: Iterable[str]) -> list[str]:
    """All that three characters in a row make of these words, each once."""
    return sorted({word[at : at + 3] for word in words for at in range(len(word) - 2)})


@dataclass(frozen=True, slots=True)
class Question:
    """What a text asks for: each of its words begins one of the organization's, or is inside of one."""

    begin: str
    """A tsquery of all words, as beginnings."""
    inside: str | None = None
    """A tsquery of what three characters in a row make of the longer words; None: each is too short for that."""
    patterns: Sequence[str] = ()
    """For LIKE: these longer words inside of others. What `inside` finds may have their characters elsewhere."""
    short: str | None = None
    """A tsquery of the shorter words, which are beginnings only."""


def question(text: str) -> Question | None:
    """None: the text has no word."""
    words = [word[:WORD_CHARACTERS_MAX] for word in folded(text).split()[:WORDS_MAX]]
    if not words:
        return None
    long = [word for word in words if len(word) >= INSIDE_CHARACTERS_MIN]
    short = [word for word in words if len(word) < INSIDE_CHARACTERS_MIN]
    if not long:
        return Question(_all(words, ":*"))
    inside = _all(trigrams(long)[:TRIGRAMS_MAX])
    return Question(_all(words, ":*"), inside, [_like(word) for word in long], _all(short, ":*") or None)


def _all(words: Iterable[str], how: str = "") -> str:
    return " & ".join("'" + word.replace("\\", "\\\\").replace("'", "''") + f"'{how}" for word in words)


def _like(word: str) -> str:
    return "%" + re.sub(r"([\\%_])", r"\\\1", word) + "%"


def key_start(text: str) -> str | None:
    """The beginning of an API key or of a key's id, where the text may be one."""
    text = text.strip()
    return text if _KEY.match(text) else None


def _words(text: str) -> Iterator[str]:
    for piece in text.split():
        yield piece
        yield from _PART.findall(piece)
