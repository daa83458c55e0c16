"""What a demo history has left."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from devstack.history.build import Extent, Told

EXTENT = Extent(ends_at=1_795_188_600, organizations=30, days=150)


@dataclass(frozen=True)
class Played:
    dsn: str
    file: Path
    told: Told

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        async def fetched() -> list[tuple[Any, ...]]:
            connection = await asyncpg.connect(self.dsn)
            try:
                return [tuple(row) for row in await connection.fetch(sql)]
            finally:
                await connection.close()

        return asyncio.run(fetched())

    @property
    def account(self) -> dict[str, Any]:
        """As the double saved it."""
        account: dict[str, Any] = json.loads(self.file.read_text())
        return account
