"""What happens to real sites. Each test names the public report of somebody whose licence system failed there."""

from datetime import timedelta

import pytest
from httpx import AsyncClient

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
