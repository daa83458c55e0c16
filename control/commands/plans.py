"""What `quotagate plans apply --stripe` does at Stripe."""

import asyncio

from pydantic import SecretStr

from common.clock import system_clock
from control.billing import products
from control.billing.client import opened
from control.db import Database
from control.settings.control_plane import Stripe as Settings


def apply_catalogue(dsn: str, key: str, url: str, *, dry_run: bool) -> list[str]:
    """The lines that tell what is different at Stripe. Raises StripeAway, StripeRefused, StoreUnavailable."""

    async def run() -> list[str]:
        settings = Settings(secret_key=SecretStr(key), api_url=url)
        async with Database.open(dsn) as db, opened(settings) as client:
            return await products.apply(db, client, system_clock(), dry_run=dry_run)

    return asyncio.run(run())
