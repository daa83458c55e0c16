"""Aliases of people, by which the journal names them: it never changes, and what it says of a person can be erased.

An e-mail address, a provider's id of a person and the address of a person's computer are replaced by an alias before an
entry is written, and put back when it is read. Who is erased has aliases that stand for nobody, and the chain of hashes
is what it was: it was made of the aliases.

A user's id stays. It means something only together with what is stored of the user elsewhere (docs/privacy.md).
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from secrets import token_hex
from typing import Any, Final, Protocol, TypeVar

from control import sql
from control.db import Connection
from control.sql.aliases import Alias

ALIAS: Final = re.compile(r"anon[0-9a-f]{24}")
EMAIL: Final = re.compile(r"[^\s@:;,<>()\"\[\]\\/|=]+@\w[\w.-]*\w")
IDENTITY: Final = re.compile(r"((?:person:|link:)*)(.+)", re.DOTALL)
PERSON: Final = "person:"
PERSON_KEYS: Final = frozenset({"person", "opened_by"})
"""Fields of an entry that hold a provider's id of a person, as it is."""
COMPUTER_KEYS: Final = frozenset({"address", "browser"})
"""Fields that say where a person sat."""
MACHINES: Final = ("service:", "org:", "key:", "site:", "code:")
VARIANTS_MAX: Final = 32

AliasOf = Callable[[str, str], str]
"""What stands for a value, of an owner."""


@dataclass(frozen=True, slots=True)
class Told:
    """What an entry tells: who did it, and what was and is."""

    actor: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


class Entry(Protocol):
    @property
    def actor(self) -> str: ...
    @property
    def before(self) -> dict[str, Any] | None: ...
    @property
    def after(self) -> dict[str, Any] | None: ...


E = TypeVar("E", bound=Entry)


def new_alias() -> str:
    return f"anon{token_hex(12)}"


def owner_of(value: str) -> str:
    """An e-mail address names the same person in any letter case; another identity is as it is."""
    return value.lower() if "@" in value else value


def identity_in(text: str, *, is_person: bool = False) -> tuple[str, str] | None:
    """What comes before a person's identity, and the identity; None where the text names a machine, or is no name.

    `person:ada@example.com`, `person:okta:00u1`, `person:link:person:ada@example.com`, also `okta:00u1` of a field that
    holds a person (`is_person`)."""
    match = IDENTITY.fullmatch(text)
    if match is None:
        return None
    prefix, identity = match.groups()
    if not (is_person or PERSON in prefix) or identity.startswith(MACHINES):
        return None
    return (prefix, identity) if "@" in identity or ":" in identity else None


def translated(told: Told, alias_of: AliasOf) -> Told:
    """The same with aliases in place of people. Pure, but for what `alias_of` does."""
    found = identity_in(told.actor)
    user = next((each["user"] for each in (told.after, told.before) if each and isinstance(each.get("user"), str)), "")
    owner = owner_of(found[1]) if found else user
    return Told(
        _text(told.actor, "", owner, alias_of),
        None if told.before is None else _value(told.before, "", owner, alias_of),
        None if told.after is None else _value(told.after, "", owner, alias_of),
    )


def _value(value: Any, key: str, owner: str, alias_of: AliasOf) -> Any:
    if isinstance(value, str):
        return _text(value, key, owner, alias_of)
    if isinstance(value, Mapping):
        of_subject = "subject" if value.get("kind") == "subject" else None
        return {
            name: _value(each, "person" if name == of_subject else name, owner, alias_of)
            for name, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [_value(each, key, owner, alias_of) for each in value]
    return value


def _text(text: str, key: str, owner: str, alias_of: AliasOf) -> str:
    if key in COMPUTER_KEYS and owner:
        return alias_of(text, owner)
    found = identity_in(text, is_person=key in PERSON_KEYS)
    if found is not None:
        prefix, identity = found
        return prefix + alias_of(identity, owner_of(identity))
    return EMAIL.sub(lambda match: alias_of(match[0], owner_of(match[0])), text)


async def aliased(connection: Connection, entries: Sequence[Told]) -> list[Told]:
    """The entries as they are written. In the transaction of the change: an alias is there when its entry is."""
    wanted: set[tuple[str, str]] = set()

    def note(value: str, owner: str) -> str:
        wanted.add((value, owner))
        return ""

    for told in entries:
        translated(told, note)
    if not wanted:
        return list(entries)
    known = await sql.aliases.of_values(connection, values=sorted({value for value, _ in wanted}))
    aliases = {(row.value, row.owner): row.alias for row in reversed(known)}  # the newest is the last, and is taken
    new = [Alias(new_alias(), value, owner) for value, owner in sorted(wanted - aliases.keys())]
    await sql.aliases.add(connection, new)
    aliases |= {(row.value, row.owner): row.alias for row in new}
    return [translated(told, lambda value, owner: aliases[value, owner]) for told in entries]


async def named(connection: Connection, entries: Sequence[E]) -> list[E]:
    """Entries as people read them. The alias of somebody who was erased stays."""
    met: set[str] = set()
    for entry in entries:
        for told in (entry.actor, entry.before, entry.after):
            _look_for(told, met)
    if not met:
        return list(entries)
    rows = await sql.aliases.values_of(connection, aliases=sorted(met))
    values = {row.alias: row.value for row in rows}
    return [
        replace(  # type: ignore[type-var]  # an entry is a data class, which a protocol cannot say
            entry,
            actor=_back(entry.actor, values),
            before=_back(entry.before, values),
            after=_back(entry.after, values),
        )
        for entry in entries
    ]


async def named_actors(connection: Connection, actors: Iterable[str]) -> dict[str, str]:
    """What people read in place of each of these."""
    stored = set(actors)
    met = {alias for actor in stored for alias in ALIAS.findall(actor)}
    rows = await sql.aliases.values_of(connection, aliases=sorted(met)) if met else []
    values = {row.alias: row.value for row in rows}
    return {actor: _back(actor, values) for actor in stored}


async def spellings(connection: Connection, text: str) -> list[str]:
    """What to look for in the journal when somebody looks for this: entries of earlier releases have it as it is,
    others have aliases of the people that it names."""
    found = identity_in(text)
    values = [found[1]] if found else sorted({match[0] for match in EMAIL.finditer(text)})
    if not values:
        return [text]
    known: dict[str, list[str]] = {value: [value] for value in values}
    for row in await sql.aliases.of_values(connection, values=values):
        known[row.value].append(row.alias)
    spelled = []
    for chosen in product(*known.values()):
        one = text
        for value, alias in zip(known, chosen, strict=True):
            one = one.replace(value, alias)
        spelled.append(one)
    return spelled[:VARIANTS_MAX]


def _look_for(told: Any, met: set[str]) -> None:
    if isinstance(told, str):
        met.update(ALIAS.findall(told))
    elif isinstance(told, Mapping):
        for each in told.values():
            _look_for(each, met)
    elif isinstance(told, Iterable):
        for each in told:
            _look_for(each, met)


def _back(told: Any, values: Mapping[str, str]) -> Any:
    if isinstance(told, str):
        return ALIAS.sub(lambda match: values.get(match[0], match[0]), told)
    if isinstance(told, Mapping):
        return {key: _back(each, values) for key, each in told.items()}
    if isinstance(told, list):
        return [_back(each, values) for each in told]
    return told
