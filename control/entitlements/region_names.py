"""The regions of the settings are those that the database knows, each by its name and number."""

from collections.abc import Mapping

from control import sql
from control.db import Database, StoreUnavailable
from control.settings.regions import RegionSettings


async def agree(db: Database, regions: Mapping[str, RegionSettings]) -> None:
    """From here on changes are published in all of these, where there are several. Raises StoreUnavailable where one is
    another in the database: two Redis would count under one number."""
    if not db.region.several:
        return
    numbers = {name: region.number for name, region in regions.items()}
    async with db.transaction() as connection:
        await sql.entitlements.add_regions(connection, numbers=list(numbers.values()), names=list(numbers))
        known = await sql.entitlements.regions(connection)
        for name, number in numbers.items():
            for row in known:
                if (row.name == name) != (row.number == number):
                    raise StoreUnavailable(
                        f"Postgres: region {row.number} is {row.name} for good, and by the settings {number} is {name}"
                    )
