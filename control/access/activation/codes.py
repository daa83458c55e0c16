"""The form of an activation code: 24 random characters and one that checks them, in groups of five. Pure.

`9F3KD-…`: Crockford's alphabet, which has no I, L, O and U, and reads what people write instead of them. 24 characters
are 120 bits. Nobody finds such a code by trying, with the database or without it, so its SHA-256 is enough: a slow hash
or a key of the server's would protect only a code that can be guessed.
"""

import re
import secrets
from hashlib import sha256
from typing import Final

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
RANDOM_CHARACTERS: Final = 24
GROUP: Final = 5
HANDLE_CHARACTERS: Final = 5

_VALUES: Final = {character: value for value, character in enumerate(ALPHABET)}
_READ_AS: Final = str.maketrans("ILO", "110")
_IGNORED: Final = re.compile(r"[\s_.\u2010-\u2015-]+")


class CodeMistyped(ValueError):
    """The text cannot be a code, so there is nothing to look up."""


def generate() -> str:
    body = "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_CHARACTERS))
    code = body + _check(body)
    return "-".join(code[at : at + GROUP] for at in range(0, len(code), GROUP))


def read(text: str) -> str:
    """The code without what makes it readable. Raises CodeMistyped."""
    code = _plain(text)
    if len(code) != RANDOM_CHARACTERS + 1 or not _VALUES.keys() >= set(code) or _check(code[:-1]) != code[-1]:
        raise CodeMistyped
    return code


def digest(code: str) -> bytes:
    """What is stored of a code that was read."""
    return sha256(code.encode()).digest()


def handle(text: str) -> str:
    """What people call a code by, and guesses are counted by: its first characters. The others are secret enough
    without them: 95 bits. Also of what is no code."""
    return _plain(text)[:HANDLE_CHARACTERS]


def _plain(text: str) -> str:
    return _IGNORED.sub("", text).upper().translate(_READ_AS)


def _check(body: str) -> str:
    """Luhn's sum modulo 32 (ISO/IEC 7812-1, generalized): finds each single wrong character, and neighbours that were
    exchanged, but for 0 and Z."""
    total = 0
    for position, character in enumerate(reversed(body)):
        value = _VALUES[character] * (2 if position % 2 == 0 else 1)
        total += value // 32 + value % 32
    return ALPHABET[-total % 32]
