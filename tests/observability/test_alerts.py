"""Each alert fires by its cause, and none of them in a clean run: docs/observability/rules.yaml, evaluated by
Prometheus' own tool on what was scraped of a real installation. docs/runbook.md names the test of each alert.

The causes are real. Where an alert waits for longer than a test can, the scrapes are drawn out over hours (samples.py);
where something must be old, its row in the database is made old.
"""

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from pathlib import Path

import pytest
from redis import Redis

from common.settings_file import load
from control.settings.control_plane import Settings
from devstack import postgres
from quota import keys
from quotagate.observability.catalogue import BY_SAMPLE
from quotagate.observability.watched import Watched
from tests.authority import Authority
from tests.gateway.store import Store
from tests.observability import proving
from tests.observability.promtool import PROMTOOL
from tests.observability.proving import HOUR, burns, lasting, make_older, proved, stripe_fails
from tests.observability.samples import Scrape
from tests.observability.stack import Gateway, Installation, eventually

pytestmark = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")

BUDGET = 7 * 60  # minutes that a cause lasts: a ticket of a budget needs hours
HANG_SECONDS = 0.6  # less than the breaker in front of Redis waits


def test_in_a_clean_run_no_alert_fires_and_each_is_about_something_that_is_there(
    installation: Installation, clean: Sequence[Scrape], tmp_path: Path
) -> None:
    proved(tmp_path, clean, (), minutes=0)
    for name, labels in clean[-1].values:
        if name != "up":
            family = BY_SAMPLE[name]
            assert {label for label, _ in labels} - {"job", "instance", "le"} == set(family.labels), name
    watched = load(None, "observability.yaml", Watched)
    grown = {series[0] for series, value in clean[-1].values.items() if value > clean[0].values.get(series, 0.0)}
    for objective in watched.slos.values():
        assert any(name.startswith(objective.metric) for name in grown), objective.metric


def test_a_slow_redis_burns_the_budgets_of_checks_of_redis_and_of_ingest(
    installation: Installation, clean: Sequence[Scrape], tmp_path: Path
) -> None:
    taken = installation.value("quotagate_take_seconds_count") or 0

    def slow() -> None:
        for _ in range(3):
            with ThreadPoolExecutor() as clients, installation.store.hanging():
                answers = clients.submit(installation.ask, 1), clients.submit(installation.report, 1)
                wait(answers, timeout=HANG_SECONDS)
        installation.shows("quotagate_take_seconds_count", lambda count: count >= taken + 3)

    cause = lasting(installation, slow)
    proved(tmp_path, clean, cause, *burns("quota_check"), *burns("redis"), *burns("ingest"), minutes=BUDGET)


def test_tables_that_are_locked_burn_the_budgets_of_authentication_and_enforcement(
    installation: Installation, clean: Sequence[Scrape], tmp_path: Path
) -> None:
    enforced = installation.value("quotagate_control_enforcement_seconds_count") or 0

    def locked() -> None:
        with proving.table_locks(installation, 5.5):
            installation.change_subscription(paused=True)
            assert installation.issue(1) == [201]
            installation.shows("quotagate_control_enforcement_seconds_count", lambda count: count > enforced)

    cause = lasting(installation, locked)
    installation.change_subscription(paused=False)
    proved(tmp_path, clean, cause, *burns("authentication"), *burns("webhook_enforcement"), minutes=BUDGET)


def test_an_upstream_that_is_gone_is_server_errors(
    installation: Installation, clean: Sequence[Scrape], tmp_path: Path
) -> None:
    def ask() -> None:
        installation.ask(20, "/gone")
        installation.shows("quotagate_responses_total", lambda answers: answers >= 20, route="/gone")

    cause = lasting(installation, ask)
    proved(tmp_path, clean, cause, "GatewayServerErrors")
    # It is asked again after a second, and left out for longer each time.
    for kind in ("upstream_ejected", "upstream_unavailable"):
        installation.ask(3, "/gone")
        installation.shows("quotagate_control_incidents_open", lambda incidents: incidents > 0, kind=kind)
    proved(tmp_path, clean, [installation.scrape()], "UpstreamEjected", "UpstreamUnavailable")


def test_without_postgres_what_waits_for_it_is_told(
    installation: Installation, clean: Sequence[Scrape], tmp_path: Path
) -> None:
    with installation.without_database():
        installation.ask(5)
        installation.shows("quotagate_unwritten_seconds", lambda seconds: seconds > 0)
        installation.shows("quotagate_control_service_restarts_total", lambda restarts: restarts > 1)

        def ask() -> None:
            assert installation.call("GET", "/v1/organizations").status_code == 503

        moving = (
            "quotagate_unwritten_seconds",
            "quotagate_control_lag_seconds",
            "quotagate_control_service_restarts_total",
        )
        cause = lasting(installation, ask, *moving)
    installation.shows("quotagate_unwritten_seconds", lambda seconds: seconds < 1)
    proved(
        tmp_path,
        clean,
        cause,
        "StoreAway",
        "ServiceFails",
        "WriterBehind",
        "ReconcilerSilent",
        "UsageUnwritten",
        "ControlServerErrors",
    )


def test_a_table_that_is_locked_leaves_the_journal_unsealed(
    installation: Installation, clean: Sequence[Scrape], tmp_path: Path
) -> None:
    statements = "BEGIN; LOCK TABLE audit_seal IN SHARE MODE; SELECT pg_sleep(6); COMMIT"
    thread = threading.Thread(target=postgres.execute, args=(installation.owner_dsn, statements))
    thread.start()
    installation.entitle(1)
    installation.shows("quotagate_control_journal_unsealed_seconds", lambda seconds: seconds > 0)
    cause = lasting(installation, lambda: None, "quotagate_control_journal_unsealed_seconds")
    thread.join()
    proved(tmp_path, clean, cause, "JournalUnsealed")


def test_a_counter_that_somebody_changed_is_drift(
    installation: Installation, clean: Sequence[Scrape], tmp_path: Path
) -> None:
    def drifted() -> bool:
        proving.add_units(installation, 5000)
        scrapes.append(installation.scrape())
        return max(v for (name, _), v in scrapes[-1].values.items() if name == "quotagate_control_drift_ratio_max") > 0

    scrapes: list[Scrape] = []
    eventually(drifted, "a round finds it")
    installation.shows("quotagate_control_drift_organizations", lambda organizations: organizations == 0)
    proved(tmp_path, clean, scrapes[-1:], "QuotaDrift", "QuotaDriftAny")


def test_a_redis_that_is_set_up_wrongly_is_told_of_by_its_memory_its_policy_and_its_disk(
    installation: Installation, clean: Sequence[Scrape], tmp_path: Path
) -> None:
    with proving.badly_set_up_redis(installation):
        cause = lasting(installation, lambda: None)
    proved(tmp_path, clean, cause, "RedisMemoryHigh", "RedisEvicts", "RedisNotPersistent", "RedisWritesFail")


def test_a_replica_that_hangs_is_behind_and_one_that_ended_is_lost(
    installation: Installation, clean: Sequence[Scrape], tmp_path: Path
) -> None:
    replica = Store(tmp_path / "replica")
    replica.directory.mkdir()
    replica.start()
    try:
        asyncio.run(proving.attach(replica, installation.store))
        installation.shows("quotagate_control_redis_replicas", lambda replicas: replicas == 1)
        now = installation.scrape().values.items()
        of_redis = {series: value for series, value in now if series[0].startswith("quotagate_control_redis_")}
        attached = Scrape(clean[-1].at, {**clean[-1].values, **of_redis})
        with replica.hanging(), Redis.from_url(installation.store.url) as redis:
            redis.set("filler", b"x" * (12 << 20))
            redis.delete("filler")
            behind = lasting(installation, lambda: None)
        proved(tmp_path, [attached], behind, "RedisReplicaBehind")
    finally:
        replica.end()
    installation.shows("quotagate_control_redis_replicas", lambda replicas: replicas == 0)
    proved(tmp_path, [attached], [installation.scrape()], "RedisReplicaLost")


def test_stripe_that_fails_leaves_a_backlog_and_what_it_refuses_is_a_dead_letter(
    installation: Installation, clean: Sequence[Scrape], tmp_path: Path
) -> None:
    stripe_fails(installation, 500)
    installation.change_subscription(paused=True)
    installation.shows("quotagate_control_stripe_events_waiting", lambda events: events > 0)
    make_older(installation, "webhook_event", "received_at", "outcome IS NULL")
    backlog = lasting(installation, lambda: None)
    proved(tmp_path, clean, backlog, "WebhookBacklog")
    stripe_fails(installation, 400)
    installation.change_subscription(paused=False)
    installation.shows("quotagate_control_stripe_events_dead", lambda events: events > 0)
    proved(tmp_path, clean, [installation.scrape()], "DeadLetters")
    stripe_fails(installation, 0)


def test_a_disputed_invoice_is_a_failed_payment(
    installation: Installation, clean: Sequence[Scrape], tmp_path: Path
) -> None:
    subscription = installation.stripe("GET", f"/v1/subscriptions/{installation.subscription}")
    installation.double("/disputes", {"invoice": subscription["latest_invoice"]})
    installation.shows("quotagate_control_incidents_open", lambda incidents: incidents > 0, kind="stripe_dispute")
    proved(tmp_path, clean, [installation.scrape()], "FailedPayments")


def test_a_notification_that_nobody_takes_is_a_backlog(
    installation: Installation, clean: Sequence[Scrape], tmp_path: Path
) -> None:
    main, installation.org = installation.org, installation.entitle(10)
    installation.ask(10)
    installation.org = main
    installation.shows("quotagate_control_messages", lambda messages: messages > 0, queue="notifications_pending")
    make_older(installation, "notification", "created_at", "outcome IS NULL")
    proved(tmp_path, clean, [installation.scrape()], "NotificationBacklog")


def test_an_entry_of_the_stream_that_is_no_event_is_an_incident_of_the_ledger(
    installation: Installation, clean: Sequence[Scrape], tmp_path: Path
) -> None:
    with Redis.from_url(installation.store.url) as redis:
        shard = keys.shard_of(installation.org, keys.SHARDS_DEFAULT)
        redis.xadd(keys.events_key(shard), {"e": b"\xff\x00 not an event"})
    installation.shows("quotagate_control_incidents_open", lambda incidents: incidents > 0, kind="usage_quarantined")
    proved(tmp_path, clean, [installation.scrape()], "LedgerIncident")


def test_signing_keys_that_are_old_or_that_nobody_can_open_are_told_of(
    installation: Installation, clean: Sequence[Scrape], tmp_path: Path
) -> None:
    with proving.changed_signing_keys(installation):
        installation.execute(proving.KEYS_GET_OLD)
        overdue = installation.scrape()
        installation.execute(proving.KEYS_ARE_DAMAGED)
        installation.shows("quotagate_control_signing_keys_unreadable", lambda unreadable: unreadable > 0)
        unreadable = installation.scrape()
    proved(tmp_path, clean, [overdue], "SigningKeyOverdue")
    proved(tmp_path, clean, [unreadable], "SigningKeyUnreadable")


def test_a_control_plane_whose_clock_is_ahead_tells_of_it(
    installation: Installation, clean: Sequence[Scrape], tmp_path: Path
) -> None:
    settings = load(installation.directory / "control.yaml", "control.yaml", Settings)

    scrape = proving.scraped_of(settings, "ahead", lambda: time.time() + timedelta(seconds=5).total_seconds())
    proved(tmp_path, clean, [scrape], "ClockSkew")


def test_a_certificate_that_ends_tomorrow_is_told_of(
    installation: Installation, clean: Sequence[Scrape], tmp_path: Path, authority: Authority
) -> None:
    kept = installation.certificate.read_bytes()
    installation.certificate.write_bytes(authority.issue("tomorrow.example", days=1).read_bytes())
    cause = [installation.scrape()]
    installation.certificate.write_bytes(kept)
    expected = ("CertificateExpires", "CertificateExpiresNow")
    proved(tmp_path, clean, cause, *expected)
    settings = load(installation.directory / "control.yaml", "control.yaml", Settings)
    tomorrow = authority.issue("postgres.example", days=1)
    dsn = f"{settings.postgres.dsn.get_secret_value()}?sslmode=disable&sslrootcert={tomorrow}"
    named = Settings.model_validate(settings.model_dump() | {"postgres": {"dsn": dsn}})
    proved(tmp_path, clean, [proving.scraped_of(named, "named")], *expected)


def test_overage_that_stripe_does_not_take_waits(
    installation: Installation, clean: Sequence[Scrape], tmp_path: Path
) -> None:
    installation.execute(proving.OVERAGE_WAITS)
    cause = [installation.scrape()]
    installation.execute(proving.OVERAGE_ENDS)
    proved(tmp_path, clean, cause, "OverageWaits")


def test_a_redis_that_hangs_opens_the_breaker_again_and_again(
    installation: Installation, clean: Sequence[Scrape], tmp_path: Path
) -> None:
    breaks = installation.value("quotagate_redis_breaks_total") or 0

    def hang() -> None:
        with ThreadPoolExecutor() as clients, installation.store.hanging():
            clients.submit(installation.ask, 1)
            installation.shows("quotagate_redis_breaks_total", lambda count: count > breaks)

    proved(tmp_path, clean, lasting(installation, hang), "LedgerBreakerOpens")


def test_without_redis_requests_are_refused_or_wait_in_the_journal(
    installation: Installation, clean: Sequence[Scrape], ailing: Gateway, tmp_path: Path
) -> None:
    def away() -> None:
        assert set(installation.ask(20)) == {503}
        assert set(installation.ask(3, at=ailing.url)) == {200}
        installation.shows("quotagate_journal_open", lambda entries: entries == 3)
        refused = {"verdict": "ledger_unavailable"}
        installation.shows("quotagate_decisions_total", lambda decisions: decisions >= 20, **refused)

    with installation.watching(ailing):
        assert installation.ask(1, at=ailing.url) == [200]
        installation.store.end()
        try:
            installation.shows("quotagate_redis_link_up", lambda links: links == 0)
            cause = lasting(installation, away)
        finally:
            installation.store.start()
        installation.shows("quotagate_journal_open", lambda entries: entries == 0)
    installation.shows("quotagate_redis_link_up", lambda links: links == 1)
    expected = ("GatewayRedisLinkDown", "StoreAway", "OutageJournalOpen", *burns("availability"))
    proved(tmp_path, clean, cause, *expected, minutes=BUDGET)


def test_an_access_log_on_a_full_disk_lacks_lines(
    installation: Installation, clean: Sequence[Scrape], ailing: Gateway, tmp_path: Path
) -> None:
    with installation.watching(ailing):
        before = installation.value("quotagate_access_log_dropped_total") or 0

        def ask() -> None:
            installation.ask(1, at=ailing.url)
            installation.shows("quotagate_access_log_dropped_total", lambda lines: lines > before)

        cause = lasting(installation, ask)
    proved(tmp_path, clean, cause, "AccessLogDropped")


def test_a_disk_that_is_nearly_full_is_told_of_before_the_journal_fails(
    installation: Installation, clean: Sequence[Scrape], ailing: Gateway, small_disk: Path | None, tmp_path: Path
) -> None:
    if small_disk is None:
        pytest.skip("nothing may be mounted here")
    with installation.watching(ailing):
        cause = [installation.scrape()]
    proved(tmp_path, clean, cause, "OutageJournalDiskFull")


def test_takes_that_nobody_remembers_are_told_of_and_are_lost_with_redis(
    installation: Installation, clean: Sequence[Scrape], ailing: Gateway, tmp_path: Path
) -> None:
    with installation.watching(ailing):
        with installation.without_database():
            assert set(installation.ask(1200, at=ailing.url)) == {200}
            installation.shows("quotagate_receipts_dropped", lambda takes: takes > 0)
            dropped = [installation.scrape()]
            with Redis.from_url(installation.store.url) as redis:
                redis.flushall()
        installation.shows("quotagate_control_units_lost_total", lambda units: units > 0)
        lost = [installation.scrape()]
    proved(tmp_path, clean, dropped, "ReceiptsDropped")
    proved(tmp_path, clean, lost, "UnitsLost", "LedgerIncident")


def test_a_collector_that_refuses_telemetry_is_told_of(
    installation: Installation, clean: Sequence[Scrape], tmp_path: Path
) -> None:
    of_planes = ("quotagate_telemetry_dropped_total", "quotagate_control_telemetry_dropped_total")
    before = [installation.value(name, signal="traces") for name in of_planes]
    assert before == [0, 0], "all that a collector was sent it has"

    def refused() -> None:
        assert set(installation.ask(1)) == {200}
        assert set(installation.report(1)) == {200}
        for name in of_planes:
            installation.shows(name, lambda dropped: dropped > 0, signal="traces")

    with installation.collector.refusing():
        cause = lasting(installation, refused)
    for other in of_planes:
        proved(tmp_path, clean, [scrape.without(other) for scrape in cause], "TelemetryDropped")


def test_a_key_set_that_cannot_be_read_again_gets_old(
    installation: Installation, clean: Sequence[Scrape], ailing: Gateway, tmp_path: Path
) -> None:
    with installation.watching(ailing):
        # It would have been read again after 30 seconds.
        installation.shows("quotagate_key_set_age_seconds", lambda seconds: seconds > 33)
        cause = lasting(installation, lambda: None, "quotagate_key_set_age_seconds")
    proved(tmp_path, clean, cause, "KeySetOld", minutes=3 * HOUR)


def test_a_plane_that_has_ended_is_told_of(installation: Installation, clean: Sequence[Scrape], tmp_path: Path) -> None:
    for process in (installation.watched[0].process, installation.control):
        process.terminate()
        process.wait(60)
    proved(tmp_path, clean, [installation.scrape()], "GatewayDown", "ControlPlaneDown")
