"""Which region a control plane works for, by its settings."""

from collections.abc import Mapping
from typing import Any

import pytest

from common.settings_file import SettingsError, parse
from control.region import ALONE, Region
from control.settings.control_plane import Settings

FILE = """
postgres: {{dsn: "postgresql://nobody@127.0.0.1/nothing"}}
redis: {{url: "redis://127.0.0.1"}}
admin_token: a-token-of-16-characters
{regions}
"""
THREE = "regions: {us: {number: 0, part: 0.5}, eu: {number: 1, part: 0.3}, ap: {number: 2, part: 0.2}}"


def read(text: str) -> Settings:
    return parse("control.yaml", FILE.format(regions=text), Settings, {})


def test_without_regions_there_is_one_that_has_everything() -> None:
    assert read("").own_region == ALONE
    assert (ALONE.number, ALONE.part, ALONE.several) == (0, 1, False)
    only = read("region: us\nregions: {us: {number: 0, part: 1}}").own_region
    assert (only.number, only.several, only.share(7), only.incident_key("redis")) == (0, False, 7, "redis")


def test_a_control_plane_works_for_the_region_that_it_names() -> None:
    assert read(f"region: eu\n{THREE}").own_region == Region("eu", 1, 0.3, 0.5, several=True)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (THREE, "region: is missing: which of us, eu, ap is this"),
        (f"region: sa\n{THREE}", r"region: is not among the regions \(us, eu, ap\)"),
        ("region: eu", r"region: is not among the regions \(there are none\)"),
        ("region: a\nregions: {a: {number: 0, part: 0.5}, b: {number: 0, part: 0.5}}", "b.number: is that of a, too"),
        ("region: a\nregions: {a: {number: 0, part: 0.5}, b: {number: 1, part: 0.4}}", "the parts add up to 0.9"),
        ("region: a\nregions: {a: {number: 0, part: 0.7}, b: {number: 1, part: 0.7}}", "the parts add up to 1.4"),
        ("region: a\nregions: {a: {number: 1, part: 1}}", "one of them has the number 0"),
        ("region: a\nregions: {a: {number: 100, part: 1}}", "number"),
        ("region: a\nregions: {a: {number: 0, part: 0}, b: {number: 1, part: 1}}", "part"),
        ("region: A\nregions: {A: {number: 0, part: 1}}", "regions"),
        ("region: a\nregions: {a: {number: 0, part: 1, host: b}}", "host"),
    ],
)
def test_regions_that_cannot_be_are_refused_by_name(text: str, fault: str) -> None:
    with pytest.raises(SettingsError, match=fault):
        read(text)


@pytest.mark.parametrize("parts", [(0.5, 0.3, 0.2), (0.34, 0.33, 0.33), (0.01, 0.29, 0.7)])
def test_the_parts_of_a_limit_add_up_to_it(parts: tuple[float, ...]) -> None:
    def shares(whole: int) -> list[int]:
        return [Region(f"r{n}", n, part, sum(parts[:n]), several=True).share(whole) for n, part in enumerate(parts)]

    assert [sum(shares(whole)) for whole in range(100, 3000, 7)] == list(range(100, 3000, 7))
    assert min(shares(1)) == 1
    assert shares(10)[0] == max(1, int(10 * parts[0]))


def test_regions_never_share_a_number_of_a_shard_or_of_an_event() -> None:
    places: Mapping[Any, Region] = {
        (region.stored(shard), region.stored_seq(seq)): region
        for region in (Region(f"r{n}", n, several=True) for n in (0, 1, 99))
        for shard in (0, 99)
        for seq in (0, region.seq_max)
    }
    assert len(places) == 3 * 2 * 2
    assert len({shard for shard, _ in places}) == len({seq for _, seq in places}) == 6
    assert max(shard for shard, _ in places) < 2**15
    assert max(seq for _, seq in places) < 2**31
