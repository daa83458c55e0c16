"""Copies of sites: for staging, by accident, and by thieves. Tests name the public reports of what others do then."""

from datetime import timedelta

from httpx import AsyncClient

from control.http.context import Context
from tests.control.access.activation.site import (
    Sites,
    again,
    code_of,
    incidents_of,
    listed,
)
from tests.control.plane import Entitled, MovedClock

GRACE = 60
SILENT = timedelta(days=7).total_seconds()


async def test_wp_rocket_2456_a_staging_copy_neither_loses_nor_steals_the_activation(
    admin: AsyncClient, entitled: Entitled, sites: Sites, clock: MovedClock
) -> None:
    """https://github.com/wp-media/wp-rocket/issues/2456."""
    org = await entitled()
    live = sites("https://shop.example.com")
    await live.activate(await code_of(admin, org, sites=1))
    for staging_domain in ("https://staging.example.com", "http://localhost:8080", "https://shop.wpengine.com"):
        copy = live.copied_to(staging_domain)
        clock.move(hours=1)
        await live.refresh()  # the copy's token is not the current one, when it first shows it
        await copy.refresh()
        assert (copy.kind, live.kind) == ("staging", "production")
        assert copy.id != live.id
        clock.move(hours=1)
        await copy.refresh()
        await live.refresh()
    assert [site["kind"] for site in await listed(admin, org)].count("production") == 1
    assert {site["clone_of"] for site in await listed(admin, org)} == {None, live.id}
    assert await incidents_of(admin, org) == []  # a copy for staging is no news


async def test_wp_rocket_2456_staging_that_is_copied_again_each_week_goes_on(
    admin: AsyncClient, entitled: Entitled, sites: Sites, clock: MovedClock
) -> None:
    org = await entitled()
    live = sites()
    await live.activate(await code_of(admin, org))
    ids = set()
    for _ in range(4):
        copy = live.copied_to("https://staging.example.com")
        await copy.refresh()
        clock.move(hours=3)
        await copy.refresh()
        ids.add(copy.id)
        clock.move(days=7)
        await live.refresh()
    assert len(ids) == 1
    assert len(await listed(admin, org)) == 2


async def test_a_staging_copy_that_is_pushed_to_live_goes_on_there(
    admin: AsyncClient, entitled: Entitled, sites: Sites, clock: MovedClock
) -> None:
    """Hosts have a button for it: the live site's data are replaced by those of staging, tokens included."""
    org = await entitled()
    live = sites("https://shop.example.com")
    await live.activate(await code_of(admin, org))
    live_id = live.id
    staging = live.copied_to("https://staging.shop.example.com")
    await staging.refresh()
    clock.move(hours=1)
    await staging.refresh()
    pushed = staging.copied_to("https://shop.example.com")
    await pushed.refresh()
    clock.move(hours=1)
    await pushed.refresh()
    await staging.refresh()
    assert (pushed.id, pushed.kind, staging.kind) == (live_id, "production", "staging")
    assert len(await listed(admin, org)) == 2


async def test_admin_columns_1304_a_cloned_site_is_recognised_and_named_and_the_original_keeps_its_seat(
    admin: AsyncClient, entitled: Entitled, sites: Sites, clock: MovedClock
) -> None:
    """https://github.com/codepress/admin-columns-issues/issues/1304: the clone keeps working unnoticed. Here the clone
    comes first, so that it looks like a move until the original is heard of again."""
    org = await entitled()
    original = sites("https://shop.example.com")
    await original.activate(await code_of(admin, org, sites=1))
    original_id = original.id
    clone = original.copied_to("https://other.example.net")
    clock.move(hours=1)
    await clone.refresh()
    assert (clone.id, clone.kind) == (original_id, "production")
    clock.move(hours=1)
    await original.refresh()
    assert (original.id, original.kind) == (original_id, "production")
    await clone.refresh()
    assert clone.kind == "staging"
    assert clone.id != original_id
    [incident] = await incidents_of(admin, org)
    assert incident["content"] == {
        "site": original_id,
        "domain": "shop.example.com",
        "copy": clone.id,
        "copy_domain": "other.example.net",
    }
    by_id = {site["id"]: site for site in await listed(admin, org)}
    assert by_id[clone.id]["clone_of"] == original_id
    assert by_id[original_id]["domain"] == "shop.example.com"
    for _ in range(3):
        clock.move(hours=1)
        await original.refresh()
        await clone.refresh()
    assert len(await listed(admin, org)) == 2


async def test_admin_columns_1304_a_clone_that_comes_after_the_original_is_named_too(
    admin: AsyncClient, entitled: Entitled, sites: Sites, clock: MovedClock
) -> None:
    org = await entitled()
    original = sites("https://shop.example.com")
    await original.activate(await code_of(admin, org, sites=1))
    clone = original.copied_to("https://other.example.net")
    clock.move(hours=1)
    await original.refresh()
    clock.move(hours=1)
    await clone.refresh()
    await original.refresh()
    assert (original.kind, clone.kind) == ("production", "staging")
    [incident] = await incidents_of(admin, org)
    assert incident["content"]["copy"] == clone.id


async def test_a_copy_whose_original_is_silent_for_long_turns_out_to_be_the_site_that_moved(
    admin: AsyncClient, entitled: Entitled, sites: Sites, clock: MovedClock
) -> None:
    org = await entitled()
    old = sites("https://old.example.com")
    await old.activate(await code_of(admin, org, sites=1))
    moved = old.copied_to("https://new.example.org")
    clock.move(hours=1)
    await old.refresh()  # the old server had not been switched off yet
    await moved.refresh()
    assert moved.kind == "staging"
    clock.move(seconds=SILENT - 3600)
    await moved.refresh()
    assert moved.kind == "staging"
    clock.move(seconds=7200)
    await moved.refresh()
    assert moved.kind == "production"
    assert await incidents_of(admin, org) == []
    [left] = await listed(admin, org)
    assert (left["id"], left["clone_of"], left["former_domain"]) == (moved.id, None, "old.example.com")
    assert again(await old.ask_refresh()) == "replaced"


async def test_lost_replies_of_a_copy_make_no_further_sites(
    admin: AsyncClient, entitled: Entitled, sites: Sites, clock: MovedClock
) -> None:
    org = await entitled()
    live = sites()
    await live.activate(await code_of(admin, org))
    copy = live.copied_to("http://localhost")
    replies = [(await copy.ask_refresh()).json() for _ in range(3)]
    assert len({reply["refresh_token"] for reply in replies}) == 1
    assert len(await listed(admin, org)) == 2


async def test_two_developers_with_a_copy_on_localhost_do_not_take_it_from_each_other(
    admin: AsyncClient, entitled: Entitled, sites: Sites, clock: MovedClock
) -> None:
    live = sites()
    await live.activate(await code_of(admin, await entitled()))
    one = live.copied_to("http://localhost")
    await one.refresh()
    clock.move(hours=1)
    await live.refresh()
    two = live.copied_to("http://localhost")
    await two.refresh()
    for _ in range(3):
        clock.move(hours=1)
        for site in (one, two, live):
            await site.refresh()
    assert len({one.id, two.id, live.id}) == 3


async def test_whoever_copies_the_tokens_and_says_the_same_domain_is_noticed_by_the_other(
    admin: AsyncClient, entitled: Entitled, sites: Sites, clock: MovedClock
) -> None:
    org = await entitled()
    site = sites()
    await site.activate(await code_of(admin, org))
    thief = site.copied_to(site.domain)
    await thief.refresh(attempt="of the thief".replace(" ", "-"))
    clock.move(seconds=GRACE + 1)
    assert again(await site.ask_refresh()) == "reused"
    assert again(await thief.ask_refresh()) == "reused"


async def test_a_thief_of_staging_that_says_the_live_domain_is_noticed_too(
    admin: AsyncClient, entitled: Entitled, sites: Sites, clock: MovedClock
) -> None:
    org = await entitled()
    live = sites()
    await live.activate(await code_of(admin, org))
    staging = live.copied_to("https://staging.example.com")
    await staging.refresh()
    thief = staging.copied_to(live.domain)
    clock.move(hours=1)
    await thief.refresh()
    assert again(await live.ask_refresh()) == "reused"
    assert again(await thief.ask_refresh()) == "reused"
    await staging.refresh()


async def test_more_copies_than_there_are_staging_seats_are_refused_and_the_site_goes_on(
    admin: AsyncClient, context: Context, entitled: Entitled, sites: Sites, clock: MovedClock
) -> None:
    org = await entitled()
    live = sites()
    await live.activate(await code_of(admin, org))
    most = context.activation.settings.staging_sites_max
    copies = [live.copied_to(f"https://copy-{number}.example.net") for number in range(most)]
    clock.move(hours=1)
    await live.refresh()
    for copy in copies:
        await copy.refresh()
    late = live.copied_to("https://late.example.net")
    clock.move(hours=1)
    await live.refresh()
    assert again(await late.ask_refresh()) == "no_staging_seat"
    await live.refresh()
    clock.move(days=2)
    for copy in copies[1:]:
        await copy.refresh()
    await live.refresh()
    late = live.copied_to("https://late.example.net")
    clock.move(hours=1)
    await live.refresh()
    await late.refresh()  # the first copy had been silent for two days
    assert again(await copies[0].ask_refresh()) == "replaced"
