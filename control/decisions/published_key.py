"""An API key as gateways know it."""

from dataclasses import dataclass

from control import sql
from control.db import Connection
from quota.access import KeyRecord
from quota.ledger import Ledger


@dataclass(frozen=True, slots=True)
class PublishedKey:
    record: KeyRecord
    imported: bool
    """It was made elsewhere."""


async def published_key(connection: Connection, ledger: Ledger, org: str, key_id: str) -> PublishedKey | None:
    """Raises LedgerUnavailable."""
    found = await sql.decisions.key_digest(connection, org=org, key_id=key_id)
    record = None if found is None else (await ledger.look(org, found.digest)).record
    return None if found is None or record is None else PublishedKey(record, found.imported)
