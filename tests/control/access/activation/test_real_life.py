"""What happens to real sites. Each test names the public report of somebody whose licence system failed there."""

from datetime import timedelta

import pytest
from httpx import AsyncClient

from control.http.context import Context
from tests.control.access.activation.site import (
    REFUSED,
    Sites,
    actions,
    again,
    code_of,
    incidents_of,
    listed,
)
from tests.control.plane import Entitled, MovedClock

GRACE = 60
SILENT = timedelta(days=7).total_seconds()


async def test_updatepulse_server_8_a_reinstall_on_the_same_site_takes_no_other_seat(
    admin: AsyncClient, entitled: Entitled, sites: Sites, clock: MovedClock
) -> None:
    """https://github.com/Anyape/updatepulse-server/issues/8: key and tokens are lost with the plugin's data."""
    org = await entitled()
    code = await code_of(admin, org, sites=1)
    first = sites("https://shop.example.com")
    await first.activate(code)
    await first.refresh()
    clock.move(hours=2)
    reinstalled = sites("https://shop.example.com")
    await reinstalled.activate(code)
    assert reinstalled.id == first.id
    await reinstalled.refresh()
    assert [site["domain"] for site in await listed(admin, org)] == ["shop.example.com"]
    assert again(await first.ask_refresh()) == "unknown"  # its key is not the site's any more
    await reinstalled.refresh()


async def test_updatepulse_server_8_a_reinstall_that_kept_its_key_goes_on_with_a_new_code(
    admin: AsyncClient, entitled: Entitled, sites: Sites, clock: MovedClock
) -> None:
    org = await entitled()
    site = sites()
    await site.activate(await code_of(admin, org))
    site_id, lost = site.id, site.copied_to(site.domain)
    clock.move(days=200)
    assert again(await site.ask_refresh()) == "expired"
    await site.activate(await code_of(admin, org))
    assert site.id == site_id
    assert again(await lost.ask_refresh()) == "replaced"
    assert len(await listed(admin, org)) == 1


async def test_givewp_1051_a_move_to_another_domain_heals_itself_and_leaves_the_old_one(
    admin: AsyncClient, entitled: Entitled, sites: Sites, clock: MovedClock
) -> None:
    """https://github.com/impress-org/givewp/issues/1051: the licence looks active and updates fail."""
    org = await entitled()
    code = await code_of(admin, org, sites=1)
    site = sites("https://old.example.com")
    await site.activate(code)
    clock.move(hours=1)
    site.domain = "https://new.example.org"
    await site.refresh()
    [listed_site] = await listed(admin, org)
    assert (listed_site["domain"], listed_site["former_domain"]) == ("new.example.org", "old.example.com")
    assert (site.kind, listed_site["id"]) == ("production", site.id)
    assert await incidents_of(admin, org) == []
    assert await actions(admin, org) == ["site.activated", "site.moved"]
    clock.move(hours=1)
    left = sites("https://old.example.com")
    assert (await left.ask_activation(code)).status_code == 403  # the seat has moved, too
    await site.refresh()


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


@pytest.mark.parametrize("domain", ["http://localhost", "https://shop.test", "https://dev.example.com", "10.0.0.7"])
async def test_radio_station_472_a_site_for_development_takes_no_seat(
    admin: AsyncClient, entitled: Entitled, sites: Sites, domain: str
) -> None:
    """https://github.com/netmix/radio-station/issues/472."""
    org = await entitled()
    code = await code_of(admin, org, sites=1)
    one, two = sites(domain), sites(domain)
    await one.activate(code)
    await two.activate(code)
    live = sites()
    await live.activate(code)
    assert [one.kind, two.kind, live.kind] == ["staging", "staging", "production"]
    assert len({one.id, two.id, live.id}) == 3
    for site in (one, two, live):
        await site.refresh()


async def test_a_pattern_of_the_code_makes_a_domain_take_no_seat(
    admin: AsyncClient, entitled: Entitled, sites: Sites
) -> None:
    code = await code_of(admin, await entitled(), sites=1, uncounted_domains=["*.preview.example.com"])
    for number in range(3):
        site = sites(f"https://branch-{number}.preview.example.com")
        await site.activate(code)
        assert site.kind == "staging"


async def test_what_was_built_on_localhost_goes_live_with_its_seat(
    admin: AsyncClient, entitled: Entitled, sites: Sites, clock: MovedClock
) -> None:
    org = await entitled()
    site = sites("http://localhost")
    await site.activate(await code_of(admin, org, sites=1))
    site.domain = "https://shop.example.com"
    clock.move(hours=1)
    await site.refresh()
    assert site.kind == "production"
    assert [each["kind"] for each in await listed(admin, org)] == ["production"]


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


async def test_wp_rocket_2804_search_and_replace_of_the_domain_breaks_nothing(
    admin: AsyncClient, entitled: Entitled, sites: Sites, clock: MovedClock
) -> None:
    """https://github.com/wp-media/wp-rocket/issues/2804: everything that is stored has its domain replaced."""
    org = await entitled()
    site = sites("https://old.example.com")
    await site.activate(await code_of(admin, org, sites=1))
    await site.refresh()
    stored = {name: str(value) for name, value in site.tokens.items()}
    for name in ("access_token", "refresh_token", "site", "organization"):
        assert "old.example.com" not in stored[name]
    site.tokens = {name: text.replace("old.example.com", "new.example.org") for name, text in stored.items()}
    site.domain = site.domain.replace("old.example.com", "new.example.org")
    clock.move(hours=1)
    await site.refresh()
    assert site.tokens["domain"] == "new.example.org"


@pytest.mark.parametrize(
    "domain",
    [
        "http://shop.example.com",
        "https://www.shop.example.com/",
        "SHOP.example.com:443",
        "https://shop.example.com/blog",
    ],
)
async def test_scheme_www_port_and_path_move_no_site(
    admin: AsyncClient, entitled: Entitled, sites: Sites, domain: str
) -> None:
    org = await entitled()
    site = sites("https://shop.example.com")
    await site.activate(await code_of(admin, org, sites=1))
    site.domain = domain
    await site.refresh()
    assert await actions(admin, org) == ["site.activated"]


async def test_polar_7042_an_expired_code_never_activates(
    admin: AsyncClient, entitled: Entitled, sites: Sites, clock: MovedClock
) -> None:
    """https://github.com/polarsource/polar/issues/7042: an expired key is activated as "granted"."""
    org = await entitled()
    code = await code_of(admin, org, sites=5, valid_seconds=60)
    site = sites("https://shop.example.com")
    await site.activate(code)
    clock.move(seconds=60)
    for late in (sites(), site, sites("https://shop.example.com"), sites("http://localhost")):
        answer = await late.ask_activation(code)
        assert (answer.status_code, answer.json()["type"]) == (403, REFUSED)
    await site.refresh()  # the site goes on: its code was good when it was activated
    assert len(await listed(admin, org, None)) == 1


async def test_django_oauth_toolkit_1617_the_first_token_does_not_live_after_the_third(
    admin: AsyncClient, entitled: Entitled, sites: Sites
) -> None:
    """https://github.com/django-oauth/django-oauth-toolkit/issues/1617, and #702: the grace gave back a dead token."""
    org = await entitled()
    site = sites()
    await site.activate(await code_of(admin, org))
    first = site.refresh_token
    await site.refresh()
    await site.refresh()
    assert again(await site.ask_refresh(first)) == "reused"
    assert again(await site.ask_refresh()) == "reused"
    assert [each["state"] for each in await listed(admin, org, None)] == ["revoked"]
    assert (await actions(admin, org))[-1] == "site.revoked"


async def test_exceptionless_2404_two_processes_that_refresh_at_once_are_not_locked_out(
    admin: AsyncClient, entitled: Entitled, sites: Sites, clock: MovedClock
) -> None:
    """https://github.com/exceptionless/Exceptionless/issues/2404: clients with several processes."""
    site = sites()
    await site.activate(await code_of(admin, await entitled()))
    other_process = site.copied_to(site.domain)
    await site.refresh()
    clock.move(seconds=GRACE - 1)
    await other_process.refresh()
    assert other_process.refresh_token == site.refresh_token
    clock.move(hours=1)
    await site.refresh()


async def test_a_lost_reply_locks_nobody_out_though_the_site_sleeps_for_a_month(
    admin: AsyncClient, entitled: Entitled, sites: Sites, clock: MovedClock
) -> None:
    site = sites()
    await site.activate(await code_of(admin, await entitled()))
    lost = await site.ask_refresh(attempt="attempt-1")
    assert lost.status_code == 200
    clock.move(days=30)
    await site.refresh(attempt="attempt-1")
    assert site.refresh_token == lost.json()["refresh_token"]
    await site.refresh(attempt="attempt-2")


async def test_without_an_attempt_the_parent_is_excused_for_the_grace_only(
    admin: AsyncClient, entitled: Entitled, sites: Sites, clock: MovedClock
) -> None:
    site = sites()
    await site.activate(await code_of(admin, await entitled()))
    assert (await site.ask_refresh(attempt="attempt-1")).status_code == 200
    clock.move(seconds=GRACE + 1)
    assert again(await site.ask_refresh(attempt="attempt-2")) == "reused"


async def test_a_lost_reply_of_an_activation_is_given_again(
    admin: AsyncClient, entitled: Entitled, sites: Sites, clock: MovedClock
) -> None:
    org = await entitled()
    code = await code_of(admin, org, sites=1)
    site = sites()
    lost = await site.ask_activation(code, attempt="attempt-1")
    clock.move(hours=5)
    await site.activate(code, attempt="attempt-1")
    assert site.refresh_token == lost.json()["refresh_token"]
    await site.refresh()


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


async def test_after_a_revocation_a_code_activates_the_site_as_another_one(
    admin: AsyncClient, entitled: Entitled, sites: Sites, clock: MovedClock
) -> None:
    org = await entitled()
    site = sites()
    await site.activate(await code_of(admin, org))
    first, first_id = site.refresh_token, site.id
    await site.refresh()
    await site.refresh()
    assert again(await site.ask_refresh(first)) == "reused"
    await site.activate(await code_of(admin, org))
    assert site.id != first_id
    await site.refresh()


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


async def test_two_domains_of_one_installation_are_one_site(
    admin: AsyncClient, entitled: Entitled, sites: Sites, clock: MovedClock
) -> None:
    """A shop in two languages, each with a domain: whichever is called refreshes."""
    org = await entitled()
    site = sites("https://shop.example.com")
    await site.activate(await code_of(admin, org, sites=1))
    for domain in ("https://shop.example.de", "https://shop.example.com") * 3:
        clock.move(hours=1)
        site.domain = domain
        await site.refresh()
    assert len(await listed(admin, org)) == 1
    assert await incidents_of(admin, org) == []
