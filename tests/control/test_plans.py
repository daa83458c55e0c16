from collections.abc import Iterator, Mapping
from pathlib import Path
from uuid import uuid4

import pytest
from httpx import AsyncClient

from common.settings_file import SettingsError
from control.db import StoreUnavailable
from control.entitlements import catalogue
from control.entitlements.catalogue import apply_plans
from control.entitlements.plans import PlanTerms, differences
from control.http.context import Context
from control.journal import Author
from devstack import postgres
from tests import charging
from tests.control.plane import Entitled, packaged_plans

AUTHOR = Author("tests", "tests")


@pytest.fixture
def postgres_dsn(postgres_server: str, postgres_template: str) -> Iterator[str]:
    """A database for each test: they all change the one catalogue."""
    name = f"plans_{uuid4().hex[:12]}"
    postgres.execute(postgres_server, f"CREATE DATABASE {name} TEMPLATE {postgres_template}")
    yield f"{postgres_server.rpartition('/')[0]}/{name}"
    postgres.execute(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def plans() -> dict[str, PlanTerms]:
    return packaged_plans()


@pytest.fixture
async def applied(context: Context, plans: Mapping[str, PlanTerms]) -> None:
    await apply_plans(context.db, plans, context.clock(), AUTHOR)


def changed(plan: PlanTerms, **update: object) -> PlanTerms:
    return PlanTerms.model_validate({**plan.model_dump(), **update})


def with_allowance(plan: PlanTerms, units: int) -> PlanTerms:
    meters = plan.model_dump()["meters"]
    return changed(plan, meters={**meters, "api_calls": {**meters["api_calls"], "allowance": units}})


def test_the_packaged_catalogue_has_the_plans_of_the_price_list(plans: Mapping[str, PlanTerms]) -> None:
    starter, growth, scale = plans["starter"], plans["growth"], plans["scale"]
    assert (starter.meters["api_calls"].allowance, starter.price_minor, starter.policy) == (
        10_000,
        {"month": 4900, "year": 49_000},
        "HARD_STOP",
    )
    overage = growth.meters["api_calls"].overage
    assert overage is not None
    assert (growth.price_minor, overage.amount_minor, overage.units) == ({"month": 39_900, "year": 399_000}, 300, 1000)
    assert scale.contact
    assert not scale.price_minor


@pytest.mark.usefixtures("applied")
async def test_applying_the_same_catalogue_again_changes_nothing(
    context: Context, plans: Mapping[str, PlanTerms]
) -> None:
    assert await apply_plans(context.db, plans, context.clock(), AUTHOR) == []


def test_the_command_tells_what_it_changed_and_is_silent_when_it_changed_nothing(
    postgres_dsn: str, tmp_path: Path
) -> None:
    new = [f"{code}: new" for code in ("starter", "growth", "scale")]
    assert catalogue.apply(postgres_dsn, None, dry_run=True) == new
    assert catalogue.apply(postgres_dsn, None) == new
    assert catalogue.apply(postgres_dsn, None) == []
    file = tmp_path / "plans.yaml"
    file.write_text(
        "plans:\n"
        "  starter: {name: Starter, policy: HARD_STOP, currency: usd, price_minor: {month: 4900, year: 49000},\n"
        "    rate: {requests: 50, seconds: 1, burst: 100}, meters: {api_calls: {allowance: 5}}}\n"
    )
    would = [
        "starter: version 2: meters.api_calls.allowance 10000 -> 5",
        *(f"{code}: archived; it stays in force where it is" for code in ("growth", "scale")),
    ]
    assert catalogue.apply(postgres_dsn, file, dry_run=True) == would
    assert catalogue.apply(postgres_dsn, file) == would


def test_the_packaged_catalogue_puts_no_plan_for_trying_out_into_a_database() -> None:
    assert not any(plan.demo for plan in catalogue.read(None).values())


@pytest.mark.usefixtures("applied")
async def test_a_dry_run_tells_what_would_change_with_the_organizations_and_changes_nothing(
    context: Context, plans: dict[str, PlanTerms], entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("starter")
    plans["starter"] = with_allowance(plans["starter"], 60)
    would = await apply_plans(context.db, plans, context.clock(), AUTHOR, dry_run=True)
    assert would == [
        "starter: version 2: meters.api_calls.allowance 10000 -> 60",
        "1 organization moved to the newest version",
    ]
    assert (await admin.get(f"/v1/entitlements/{org}")).json()["plan_version"] == 1
    assert await apply_plans(context.db, plans, context.clock(), AUTHOR) == would


def test_a_wrong_line_is_named_and_nothing_is_applied(tmp_path: Path) -> None:
    file = tmp_path / "plans.yaml"
    file.write_text(
        "plans:\n  p:\n    name: P\n    policy: METERED\n    currency: usd\n"
        "    meters:\n      api_calls: {allowance: 1}\n"
    )
    with pytest.raises(SettingsError) as e:
        catalogue.apply("postgresql://nobody@127.0.0.1:1/none", file)
    assert str(e.value).splitlines() == [
        f"{file}:2: plans.p.price_minor: is missing: a plan has a price, or contact: true, or demo: true",
        f"{file}:7: plans.p.meters.api_calls.overage: is missing: METERED sells overage, which needs a price",
    ]


@pytest.mark.usefixtures("applied")
async def test_a_changed_plan_is_a_new_version_and_its_organizations_get_it_with_what_they_used(
    context: Context, plans: dict[str, PlanTerms], entitled: Entitled, admin: AsyncClient
) -> None:
    org, other = await entitled("starter"), await entitled("growth")
    await charging.take(context.ledger, org, "r1", {"api_calls": 70})
    plans["starter"] = with_allowance(plans["starter"], 60)
    lines = await apply_plans(context.db, plans, context.clock(), AUTHOR)
    assert lines == [
        "starter: version 2: meters.api_calls.allowance 10000 -> 60",
        "1 organization moved to the newest version",
    ]
    await context.publisher.round()
    entitlement = (await admin.get(f"/v1/entitlements/{org}")).json()
    meter = entitlement["meters"][0]
    assert (entitlement["plan_version"], meter["limit"], meter["used"], meter["remaining"]) == (2, 60, 70, 0)
    assert (await admin.get(f"/v1/entitlements/{other}")).json()["plan_version"] == 1
    [moved, *_] = (await admin.get(f"/v1/organizations/{org}/journal")).json()["entries"]
    assert (moved["action"], moved["before"], moved["after"]) == (
        "entitlement.plan_version",
        {"plan": "starter", "plan_version": 1},
        {"plan": "starter", "plan_version": 2},
    )


@pytest.mark.usefixtures("applied")
async def test_a_plans_number_of_requests_under_way_is_published_to_its_organizations_which_keep_their_own(
    context: Context, plans: dict[str, PlanTerms], entitled: Entitled, admin: AsyncClient
) -> None:
    org, own = await entitled("starter"), await entitled("starter", concurrent_max=3)
    plans["starter"] = changed(plans["starter"], concurrent_max=20)
    lines = await apply_plans(context.db, plans, context.clock(), AUTHOR)
    assert lines[0] == "starter: version 2: concurrent_max none -> 20"
    assert len(await apply_plans(context.db, plans, context.clock(), AUTHOR)) == 0
    await context.publisher.round()
    for name, concurrent_max in ((org, 20), (own, 3)):
        standing = await context.ledger.peek(name)
        assert standing is not None
        assert standing.concurrent_max == concurrent_max
    [starter] = [p for p in (await admin.get("/v1/plans")).json()["plans"] if p["code"] == "starter"]
    assert starter["concurrent_max"] == 20


@pytest.mark.usefixtures("applied")
async def test_organizations_that_a_crash_left_on_an_old_version_are_moved_by_the_next_apply(
    context: Context,
    plans: dict[str, PlanTerms],
    entitled: Entitled,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await entitled("tiny")
    await entitled("tiny")
    plans["tiny"] = with_allowance(plans["tiny"], 7)

    async def crash(*_: object) -> int:
        raise StoreUnavailable("the power is gone")

    monkeypatch.setattr(catalogue, "_move_organizations", crash)
    with pytest.raises(StoreUnavailable):
        await apply_plans(context.db, plans, context.clock(), AUTHOR)
    monkeypatch.undo()
    assert await apply_plans(context.db, plans, context.clock(), AUTHOR) == [
        "2 organizations moved to the newest version"
    ]


@pytest.mark.usefixtures("applied")
async def test_a_plan_that_left_the_catalogue_stays_in_force_and_is_given_to_nobody_else(
    context: Context, plans: dict[str, PlanTerms], entitled: Entitled, admin: AsyncClient
) -> None:
    org, other = await entitled("bulk"), await entitled("growth")
    bulk = plans.pop("bulk")
    assert await apply_plans(context.db, plans, context.clock(), AUTHOR) == [
        "bulk: archived; it stays in force where it is"
    ]
    assert (await admin.get(f"/v1/entitlements/{org}")).json()["plan"] == "bulk"
    assert (await admin.put(f"/v1/entitlements/{org}", json={"plan": "bulk", "status": "grace"})).status_code == 200
    assert (await admin.put(f"/v1/entitlements/{other}", json={"plan": "bulk"})).status_code == 422
    plans["bulk"] = bulk
    assert await apply_plans(context.db, plans, context.clock(), AUTHOR) == ["bulk: back in the catalogue"]
    assert (await admin.put(f"/v1/entitlements/{other}", json={"plan": "bulk"})).status_code == 200


def test_a_difference_names_each_field_that_changed(plans: Mapping[str, PlanTerms]) -> None:
    old = plans["growth"]
    new = changed(old, price_minor={"month": 39_900, "year": 400_000}, rate=None)
    assert differences(old.model_dump(mode="json"), new.model_dump(mode="json")) == [
        "price_minor.year 399000 -> 400000",
        "rate.requests 200 -> none",
        "rate.seconds 1.0 -> none",
        "rate.burst 400 -> none",
    ]


async def test_the_api_changes_the_catalogue_as_the_file_does_and_archives_only_when_it_is_asked_to(
    context: Context, admin: AsyncClient, entitled: Entitled
) -> None:
    org = await entitled("tiny")
    plans = {plan["code"]: plan for plan in (await admin.get("/v1/plans")).json()["plans"]}
    tiny = packaged_plans()["tiny"].model_dump(mode="json") | {"concurrent_max": 77}
    for dry_run in (True, False):
        answer = await admin.put("/v1/plans", json={"plans": {"tiny": tiny}, "dry_run": dry_run})
        assert answer.json()["changes"][0] == f"tiny: version {plans['tiny']['version'] + 1}: concurrent_max none -> 77"
        await context.publisher.install(org)
        in_force = (await admin.get(f"/v1/entitlements/{org}")).json()["concurrent_max"]
        assert in_force == (None if dry_run else 77)
    assert (await admin.put("/v1/plans", json={"plans": {"tiny": tiny}})).json() == {"changes": []}
    assert not any(
        plan["archived"] for plan in (await admin.get("/v1/plans")).json()["plans"] if plan["code"] == "many"
    )
    pruned = await admin.put("/v1/plans", json={"plans": {"tiny": tiny}, "prune": True, "dry_run": True})
    assert "many: archived; it stays in force where it is" in pruned.json()["changes"]


async def test_a_catalogue_of_other_versions_than_expected_is_left_as_it_is(
    admin: AsyncClient, catalogue: None
) -> None:
    plans = (await admin.get("/v1/plans")).json()["plans"]
    versions = {plan["code"]: plan["version"] for plan in plans if not plan["archived"]}
    tiny = packaged_plans()["tiny"].model_dump(mode="json") | {"name": "Other"}
    for expected in (versions | {"tiny": versions["tiny"] + 1}, versions | {"gone": 1}, {}):
        answer = await admin.put("/v1/plans", json={"plans": {"tiny": tiny}, "expected": expected})
        assert answer.status_code == 409, answer.text
    assert (await admin.get("/v1/plans")).json()["plans"] == plans
    answer = await admin.put("/v1/plans", json={"plans": {"tiny": tiny}, "expected": versions})
    assert answer.status_code == 200


async def test_a_plan_that_cannot_be_sold_is_refused_by_its_field(admin: AsyncClient) -> None:
    growth = packaged_plans()["growth"].model_dump(mode="json") | {"price_minor": {}}
    answer = await admin.put("/v1/plans", json={"plans": {"growth": growth}})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "body.plans.growth.price_minor"
