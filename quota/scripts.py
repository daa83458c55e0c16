"""The Lua scripts as Redis runs them: includes expanded, named by their SHA-1."""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_INCLUDE = re.compile(r"^--@include (\S+)\n", re.MULTILINE)


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


@cache
def script(name: str) -> Script:
    """The script `lua/<name>.lua`, with each `--@include <path>` line replaced by that file."""
    source = _INCLUDE.sub(lambda m: _text(m[1]), _text(f"{name}.lua")).encode()
    return Script(name, source, hashlib.sha1(source, usedforsecurity=False).hexdigest())
