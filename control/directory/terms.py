"""Words by which an organization is found, and the question that a text is. Pure.

PostgreSQL's own parser takes an address or a number with a sign for one word, and its dictionaries speak one language,
so words are made here: without case and accents, whole (`ada@example.com`, `org-12`) and in their parts. What is asked
for is the beginning of words, all of them.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Final

EMAILS_MAX: Final = 1_000  # of one organization: each is a word of its index entry
WORDS_MAX: Final = 8
WORD_CHARACTERS_MAX: Final = 200

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


def question(text: str) -> str | None:
    """A tsquery: each word of the text begins a word of the organization. None: the text has no word."""
    words = folded(text).split()[:WORDS_MAX]
    quoted = ("'" + word[:WORD_CHARACTERS_MAX].replace("\\", "\\\\").replace("'", "''") + "':*" for word in words)
    return " & ".join(quoted) or None


def key_start(text: str) -> str | None:
    """The beginning of an API key or of a key's id, where the text may be one."""
    text = text.strip()
    return text if _KEY.match(text) else None


def _words(text: str) -> Iterator[str]:
    for piece in text.split():
        yield piece
        yield from _PART.findall(piece)
