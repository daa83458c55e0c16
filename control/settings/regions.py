"""Several regions, each with a Redis, gateways and control planes of its own; all share one PostgreSQL."""

from itertools import pairwise
from typing import Annotated

from pydantic import Field

from common.settings_file import Location, SettingsConflict, SettingsModel
from control.region import ALONE, NUMBER_MAX, Region

RegionName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]


class RegionSettings(SettingsModel):
    """One region."""

    number: Annotated[int, Field(ge=0, le=NUMBER_MAX)]
    """By which PostgreSQL tells it apart, forever. What was there before regions is of number 0."""
    part: Annotated[float, Field(gt=0, le=1)]
    """Of an organization's rates and limits of concurrent requests; those of all regions add up to 1."""


def own_region(region: str | None, regions: dict[str, RegionSettings]) -> Region:
    """Raises SettingsConflict."""
    faults: list[tuple[Location, str]] = []
    if regions and region is None:
        faults.append((("region",), f"is missing: which of {', '.join(regions)} is this"))
    if region is not None and region not in regions:
        faults.append((("region",), f"is not among the regions ({', '.join(regions) or 'there are none'})"))
    in_order = sorted(regions.items(), key=lambda each: each[1].number)
    for (name, one), (other, next_one) in pairwise(in_order):
        if one.number == next_one.number:
            faults.append((("regions", other, "number"), f"is that of {name}, too"))
    if in_order and in_order[0][1].number != 0:
        faults.append((("regions",), "one of them has the number 0: what was counted without regions is its own"))
    total = sum(each.part for each in regions.values())
    if regions and abs(total - 1) > 1e-6:
        faults.append((("regions",), f"the parts add up to {total:g}, not to 1"))
    if faults:
        raise SettingsConflict(faults)
    before = 0.0
    for name, each in in_order:
        if name == region:
            return Region(name, each.number, each.part, before, len(regions) > 1)
        before += each.part
    return ALONE
