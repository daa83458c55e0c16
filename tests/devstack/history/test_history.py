"""The demo history: what it leaves in the database is what a year of the real thing would have left."""

import asyncio

from redis.asyncio import Redis

from control.audit import verify
from control.audit.sealer import Sealer
from control.commands.reconcile import recompute
from control.db import Database
from control.decisions.explained import Explained
from control.decisions.explainer import Explainer
from quota.ledger import Ledger
from tests.devstack.history.played import EXTENT, Played


def test_each_counter_is_the_sum_of_its_events(history: Played) -> None:
    counters, differing = recompute(history.dsn, None)
    assert differing == []
    assert counters > EXTENT.organizations
    [(events,)] = history.rows("SELECT count(*) FROM usage_event")
    assert events == history.told.events > 1000


def test_its_journal_can_be_verified(history: Played) -> None:
    async def seal() -> None:
        async with Database.open(history.dsn) as db:
            sealer = Sealer(db)
            while await sealer.seal():
                pass

    asyncio.run(seal())
    verdict = verify.run(history.dsn, 1, [], 60, 60)
    [(entries,)] = history.rows("SELECT count(*) FROM audit_journal")
    assert (verdict.broken, verdict.verified) == (None, entries)


def test_invoices_here_are_those_at_stripe(history: Played) -> None:
    here = history.rows("SELECT id, status, total_minor, amount_paid_minor FROM invoice_ref ORDER BY id")
    invoices = history.account["objects"]["invoice"].values()
    there = [
        (each["id"], each["status"], each["total"], each["amount_paid"])
        for each in invoices
        if each["status"] != "draft"  # its hour is not over yet
    ]
    assert here == sorted(there)
    assert len(here) > 2 * EXTENT.organizations


def test_subscriptions_here_are_those_at_stripe_and_entitle(history: Played) -> None:
    here = history.rows("SELECT id, status FROM subscription ORDER BY id")
    subscriptions = history.account["objects"]["subscription"].values()
    assert here == sorted((each["id"], each["status"]) for each in subscriptions)
    paying = {each["id"] for each in subscriptions if each["status"] in ("active", "trialing")}
    in_force = history.rows(
        f"SELECT DISTINCT subscription FROM entitlement WHERE effective_from <= to_timestamp({EXTENT.ends_at})"
        f" AND (effective_to IS NULL OR effective_to > to_timestamp({EXTENT.ends_at})) AND status <> 'grace'"
    )
    assert paying == {subscription for (subscription,) in in_force if subscription is not None}


def test_what_happens_in_the_year_is_dated_in_the_year(history: Played) -> None:
    for table, column in (("audit_journal", "at"), ("organization", "created_at"), ("usage_event", "occurred_at")):
        [(first, last)] = history.rows(f"SELECT min({column}), max({column}) FROM {table}")  # our own names
        assert EXTENT.starts_at <= first.timestamp() <= last.timestamp() <= EXTENT.ends_at, table


def test_the_same_seed_plays_the_same_history(play: list[Played]) -> None:
    one, other = play
    actor = "regexp_replace(actor, '^(code|site|person):.*', '')"  # they have new ids and aliases each time
    assert one.told == other.told
    for sql in (
        "SELECT id, org, number, status, total_minor, created_at FROM invoice_ref ORDER BY id",
        "SELECT org, period_start, meter, used, burnt, overage FROM usage_counter ORDER BY 1, 2, 3",
        f"SELECT at, {actor}, action, org FROM audit_journal WHERE action <> 'plan.added' ORDER BY id",
        "SELECT at, org, charges, detail, shadow FROM refusal ORDER BY at, org",
        "SELECT org, domain, kind, state, seen_at FROM site ORDER BY id",
        "SELECT kind, key, opened_at, closed_at FROM incident WHERE kind = 'quota_exhausted' ORDER BY id",
    ):
        assert one.rows(sql) == other.rows(sql), sql
    assert one.account["objects"]["subscription"] == other.account["objects"]["subscription"]


def test_what_is_refused_lately_is_kept_and_of_the_one_in_shadow_mode_it_went_on(history: Played) -> None:
    [(shadowed,)] = history.rows("SELECT id FROM organization WHERE shadow")
    kept = history.rows("SELECT org, shadow, at, request_id FROM refusal")
    assert {org for org, shadow, _, _ in kept if shadow} == {shadowed}
    assert {org for org, shadow, _, _ in kept if not shadow} - {shadowed}
    assert all(EXTENT.ends_at - 30 * 86_400 <= at.timestamp() <= EXTENT.ends_at for _, _, at, _ in kept)
    [(counted,)] = history.rows("SELECT sum(refused) FROM refusal_count")
    assert counted == len(kept)


def test_a_refusal_of_it_is_explained_by_what_was_published_and_counted_then(history: Played) -> None:
    ids = [id_ for (id_,) in history.rows("SELECT request_id FROM refusal")]

    async def explain() -> list[Explained]:
        async with Database.open(history.dsn) as db:
            # No refusal asks Redis: what was published is kept.
            explainer = Explainer(db, Ledger(Redis.from_url("redis://127.0.0.1:1")), 30, lambda: EXTENT.ends_at)
            return [(await explainer.find(id_, None))[0] for id_ in ids]

    explained = asyncio.run(explain())
    assert len(explained) > 10
    assert [each.refusal for each in explained if each.doubts] == []


def test_sites_are_activated_and_heard_of_and_copies_are_told(history: Played) -> None:
    sites = history.rows(
        "SELECT org, kind, clone_of, extract(epoch FROM seen_at)::bigint FROM site WHERE state = 'active'"
    )
    assert {kind for _, kind, _, _ in sites} == {"production", "staging"}
    heard = [seen for *_, seen in sites if seen == EXTENT.ends_at]
    assert 0 < len(heard) < len(sites), "some are silent"
    copies = [org for org, _, clone_of, _ in sites if clone_of is not None]
    told = [org for (org,) in history.rows("SELECT org FROM incident WHERE kind = 'site_cloned'")]
    assert sorted(copies) == sorted(told) != []
