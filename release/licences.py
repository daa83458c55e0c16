"""`make licences`: the licence of each component of build/sbom.cdx.json, as a table in build/. Fails at one that is not
allowed by licences.toml."""

import json
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from release.sbom import DOCUMENT, ROOT

ALLOWED: Final = Path(__file__).with_name("licences.toml")
REPORT: Final = ROOT / "build" / "licences.md"
_WORD: Final = re.compile(r"\(|\)|[^\s()]+")


@dataclass(frozen=True, slots=True)
class Component:
    name: str
    version: str
    licences: tuple[str, ...]
    """SPDX expressions, or names as the package says them. It is under all of them."""

    @property
    def licence(self) -> str:
        return ", ".join(self.licences) or "none is told"


def components_of(document: Mapping[str, Any]) -> Iterator[Component]:
    for each in document["components"]:
        told = [one.get("license", {}) | one for one in each.get("licenses", ())]
        # A classifier beside it says the same less exactly.
        exact = [one.get("expression") or one.get("id") for one in told]
        names = [name for name in exact if name] or [one["name"] for one in told]
        yield Component(each["name"], each.get("version", ""), tuple(dict.fromkeys(names)))


def is_allowed(expression: str, allowed: frozenset[str]) -> bool:
    """Whether an SPDX expression can be met by what is allowed: of `OR` one side, of `AND` both.

    https://spdx.github.io/spdx-spec/v2.3/SPDX-license-expressions/"""
    words = _WORD.findall(expression)

    def alternatives() -> bool:
        good = both()
        while words[:1] == ["OR"]:
            words.pop(0)
            good = both() or good
        return good

    def both() -> bool:
        good = one()
        while words[:1] == ["AND"]:
            words.pop(0)
            good = one() and good
        return good

    def one() -> bool:
        if not words:
            return False
        word = words.pop(0)
        if word == "(":
            good = alternatives()
            return bool(words) and words.pop(0) == ")" and good
        if words[:1] == ["WITH"]:
            word = " ".join([word, words.pop(0), *words[:1]])
            del words[:1]
        return word in allowed

    return expression in allowed or (alternatives() and not words)


def faults(components: list[Component], by: Mapping[str, Any]) -> Iterator[str]:
    """A line for each component that is not allowed by these rules, and for each exception that nothing needs."""
    allowed, exceptions = frozenset(by["allowed"]), by.get("exceptions", {})
    needed = set()
    for each in components:
        if each.licences and all(is_allowed(licence, allowed) for licence in each.licences):
            continue
        exception = exceptions.get(each.name)
        needed.add(each.name)
        if exception is None:
            yield f"{each.name} {each.version}: {each.licence}"
        elif exception["licence"] != each.licence:
            yield f"{each.name} {each.version}: {each.licence}, and the exception is for {exception['licence']}"
    yield from (f"{name}: an exception that nothing needs" for name in exceptions if name not in needed)


def rules() -> Mapping[str, Any]:
    return tomllib.loads(ALLOWED.read_text())


def table(components: list[Component]) -> str:
    lines = ["| component | version | licence |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {each.name} | {each.version} | {each.licence} |" for each in components)]) + "\n"


def main() -> None:
    components = list(components_of(json.loads(DOCUMENT.read_text())))
    REPORT.write_text(table(components))
    found = list(faults(components, rules()))
    if found:
        sys.exit("\n".join(["not allowed by release/licences.toml:", *found]))
    print(f"{REPORT.relative_to(ROOT)}: {len(components)} components, all of them allowed")


if __name__ == "__main__":
    main()
