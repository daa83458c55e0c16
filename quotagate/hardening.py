"""What an attacker would look for in the database, for `quotagate doctor`."""

from collections.abc import Iterator
from typing import Protocol


class Hardening(Protocol):
    @property
    def makes_roles(self) -> bool: ...
    @property
    def makes_databases(self) -> bool: ...
    @property
    def replicates(self) -> bool: ...
    @property
    def bootstrap_tokens(self) -> int: ...
    @property
    def old_tokens(self) -> int: ...
    @property
    def ids_with_address(self) -> int: ...


def judge_hardening(found: Hardening) -> Iterator[tuple[bool, str, str]]:
    """Whether it is good, what it is about, and what to say of it."""
    rights = [
        name
        for name, has in (
            ("CREATEROLE", found.makes_roles),
            ("CREATEDB", found.makes_databases),
            ("REPLICATION", found.replicates),
        )
        if has
    ]
    detail = f"the role has {', '.join(rights)}: take what it does not need" if rights else "none beyond its tables"
    yield not rights, "postgres rights", detail
    # A token of a year is no fault, but somebody should know of it.
    tokens = "1 token is" if found.old_tokens == 1 else f"{found.old_tokens} tokens are"
    detail = f"{tokens} older than a year: roll them" if found.old_tokens else "none is older than a year"
    if found.bootstrap_tokens:
        detail += "; that of the settings is in use: revoke it when people and machines have their own"
    yield not found.old_tokens, "service tokens", detail
    users = "1 user has" if found.ids_with_address == 1 else f"{found.ids_with_address} users have"
    detail = f"{users} an e-mail address for an id, which no erasure takes out of usage (docs/privacy.md)"
    yield not found.ids_with_address, "user ids", detail if found.ids_with_address else "none is an e-mail address"
