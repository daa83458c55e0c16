"""The Lua scripts as Redis runs them: includes and constants expanded, named by their SHA-1."""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from quota.wire import CONSTANTS

NOT_VOUCHED: Final = "NOTVOUCHED"
"""The first word of the error of a script of `vouched`; lua/parts/vouched.lua has it, too."""

_INCLUDE = re.compile(r"^--@include (\S+)\n", re.MULTILINE)
_CONSTANTS = re.compile(r"^( *)--@constants (.+)\n", re.MULTILINE)


class ScriptMalformed(Exception):
    """A script asks for a constant that quota/wire.py does not have."""


@dataclass(frozen=True, slots=True)
class Script:
    name: str
    source: bytes
    sha: str
    """SHA-1 in hex: what EVALSHA calls it by."""


def _text(path: str) -> str:
    resource = files("lua")
    for part in path.split("/"):
        resource = resource.joinpath(part)
    return resource.read_text(encoding="utf-8")


def _constants(names: list[str], script_name: str) -> str:
    """One line that defines them, so that the lines after it keep their numbers in Redis' error messages."""
    unknown = [name for name in names if name not in CONSTANTS]
    if unknown:
        raise ScriptMalformed(f"lua/{script_name}.lua: no such constant: {', '.join(unknown)}")
    values = [f"'{value}'" if isinstance(value, str) else str(value) for value in map(CONSTANTS.__getitem__, names)]
    return f"local {', '.join(names)} = {', '.join(values)}\n"


def compose(text: str, name: str) -> str:
    """`text` with each `--@include <path>` line replaced by that file, and each `--@constants <name> …` line by their
    definition. Raises ScriptMalformed."""
    included = _INCLUDE.sub(lambda m: _text(m[1]), text)
    return _CONSTANTS.sub(lambda m: m[1] + _constants(m[2].split(), name), included)


@cache
def script(name: str) -> Script:
    """The script `lua/<name>.lua`."""
    return _made(name, _text(f"{name}.lua"))


@cache
def vouched(name: str) -> Script:
    """The same script with one key and one argument more: the shard's generation, and what it must be. Where it is
    another one the reply is the error NOT_VOUCHED, and nothing has changed."""
    return _made(name, "--@include parts/vouched.lua\n" + _text(f"{name}.lua"))


def _made(name: str, text: str) -> Script:
    source = compose(text, name).encode()
    return Script(name, source, hashlib.sha1(source, usedforsecurity=False).hexdigest())
