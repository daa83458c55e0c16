"""`quotagate up --demo-history`: a year of 200 organizations, in a running stack."""

import httpx

from devstack import postgres
from tests.e2e.running import Command, Eventually, StartUp

SUMS = (
    "SELECT (SELECT count(*) FROM organization), (SELECT count(*) FROM invoice_ref),"
    " (SELECT count(*) FROM usage_event), (SELECT sum(used) FROM usage_counter)"
)
LATE = "SELECT (SELECT count(*) FROM overage_window) > 0, (SELECT count(*) FROM incident WHERE kind = 'overage_late')"


def test_a_history_is_played_once_and_agrees_with_its_events(
    up: StartUp, quotagate: Command, eventually: Eventually
) -> None:
    first = up("history", "--demo-history")
    dsn = first.ready["postgres"]
    recomputed = quotagate("recompute", "--dsn", dsn)
    assert recomputed.returncode == 0, recomputed.stdout
    assert eventually(lambda: postgres.execute(dsn, "SELECT count(*) FROM audit_unsealed") == "0")
    verified = quotagate("audit", "verify", "--dsn", dsn)
    assert verified.returncode == 0, verified.stderr
    played = postgres.execute(dsn, SUMS)
    assert int(played.partition("|")[0]) >= 200

    busy = "SELECT org FROM usage_counter c JOIN publication p USING (org) WHERE used > 100 AND published_version > 0"
    org = postgres.execute(dsn, f"{busy} ORDER BY period_start DESC, org LIMIT 1")
    used = "SELECT used FROM usage_counter WHERE org = '{}' AND meter = 'api_calls' ORDER BY period_start DESC LIMIT 1"
    [meter] = [each for each in first.entitlement(org)["meters"] if each["meter"] == "api_calls"]
    assert meter["used"] == int(postgres.execute(dsn, used.format(org))), "as Redis has it"
    assert postgres.execute(dsn, LATE) == "t|0", "overage was told in time for its invoice"
    assert httpx.get(first.ready["console"], follow_redirects=True).status_code == httpx.codes.OK
    first.stop()

    second = up("history", "--demo-history")
    assert "Playing" not in second.output.read_text()
    assert postgres.execute(second.ready["postgres"], SUMS) == played
    second.stop()
