"""What is exported can be applied elsewhere, and is the same there."""

import json
import random
import resource
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

from quotagate.admin import connected
from quotagate.configuration import applying, comparison
from quotagate.configuration.applying import Outcome
from quotagate.configuration.writing import as_yaml
from tests.control.plane import ADMIN_TOKEN
from tests.quotagate.configuration.planes import Plane, catalogue, opened

ORGANIZATIONS = 16
ADMIN_ENV = "QUOTAGATE_ADMIN_TOKEN"
NAMES = (
    "Acme",
    "1e5",
    "null",
    "yes",
    "08",
    "${HOME}",
    "a: b # c",
    "Ünïcode ☃ 🦊",
    " spaced ",
    "'quoted\"",
    "0x10",
    "~",
)
BOUNDS = [f"20{year}-01-01T00:00:00Z" for year in range(26, 40)]
Full = tuple[Plane, dict[str, Any]]
METERS = ("api_calls", "images", "tokens")


def random_entitlement(rng: random.Random) -> dict[str, Any]:
    content: dict[str, Any] = {"plan": rng.choice(["starter", "growth", "scale", "tiny", "many"])}
    chosen = {
        "status": rng.choice(["active", "trialing", "grace", "suspended"]),
        "policy": rng.choice(["HARD_STOP", "METERED"]),
        "meters": {meter: rng.randrange(10_000) for meter in rng.sample(METERS, rng.randint(1, 3))},
        "overage_max": {rng.choice(METERS): rng.randrange(10_000)},
        "rate": {"requests": rng.randint(1, 90), "seconds": rng.choice([1, 0.5, 60]), "burst": rng.randint(1, 90)},
        "concurrent_max": rng.randint(1, 90),
        "period_anchor": f"2026-0{rng.randint(1, 9)}-1{rng.randint(0, 9)}T05:00:00+02:00",
        "period": rng.choice(
            [
                {"every": rng.randint(1, 9), "unit": rng.choice(["day", "week", "month"])},
                {"bounds": BOUNDS},
            ]
        ),
    }
    return content | {name: value for name, value in chosen.items() if rng.random() < 0.4}


def furnish(plane: Plane, rng: random.Random) -> None:
    """Some organizations of all kinds."""
    plane.ask("PUT", "/v1/plans", {"plans": catalogue()})
    for n in range(ORGANIZATIONS):
        org = f"org-{n:03}"
        path = f"/v1/organizations/{org}"
        plane.ask("PUT", path, {"name": rng.choice(NAMES)})
        kind = rng.random()
        if kind < 0.8:
            plane.ask("PUT", f"/v1/entitlements/{org}", random_entitlement(rng))
        elif kind < 0.9:
            plane.ask("POST", f"/v1/entitlements/{org}/suspend", {"reason": "unpaid"})
        for _ in range(rng.choice([0, 0, 1, 3])):
            at = f"20{rng.randint(30, 60)}-01-01T00:00:00Z"
            grant = {"meter": rng.choice(METERS), "units": rng.randint(1, 3), "expires_at": at}
            plane.ask("POST", f"{path}/grants", grant | {"reason": rng.choice(NAMES)})
        if rng.random() < 0.4:
            plane.ask("PUT", f"{path}/caps/{rng.choice(METERS)}", {"units": rng.randrange(900)})
        if rng.random() < 0.4:
            plane.ask("PUT", f"{path}/alerts", {"percents": rng.sample(range(1, 900), rng.randint(1, 4))})
        if rng.random() < 0.3:
            preview = plane.ask("POST", f"{path}/actions/shadow/preview", {"fields": {"mode": "on"}})
            done = {"fields": {"mode": "on"}, "reason": "trial", "state": preview["state"]}
            plane.ask("POST", f"{path}/actions/shadow", done)


@pytest.fixture(autouse=True)
def admin_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADMIN_ENV, ADMIN_TOKEN)


@pytest.fixture(scope="module")
def full(postgres_server: str, postgres_template: str, application_login: str, stack_directory: Path) -> Iterator[Full]:
    with opened(postgres_server, postgres_template, application_login, stack_directory) as plane:
        furnish(plane, random.Random(20261130))
        content = plane.export(ORGANIZATIONS)
        assert content["plans"] == catalogue()
        yield plane, content


@pytest.fixture(scope="module")
def empty(
    postgres_server: str, postgres_template: str, application_login: str, stack_directory: Path
) -> Iterator[Plane]:
    """It is empty for the first test; the others make organizations of their own."""
    with opened(postgres_server, postgres_template, application_login, stack_directory) as plane:
        yield plane


@pytest.fixture
def stocked(empty: Plane) -> Plane:
    """With the catalogue, whichever tests came before."""
    empty.ask("PUT", "/v1/plans", {"plans": catalogue()})
    return empty


def test_the_export_of_a_random_state_applied_to_an_empty_server_exports_the_same(
    full: Full, empty: Plane, tmp_path: Path
) -> None:
    plane, content = full
    plane.done("export", tmp_path)
    assert len(list(tmp_path.rglob("*.yaml"))) == ORGANIZATIONS + 1
    different = empty.run("diff", tmp_path)
    assert different.exit_code == 3, different.output
    empty.done("apply", tmp_path)
    assert empty.done("apply", tmp_path) == "Nothing differs: nothing was done.\n"
    assert empty.export(ORGANIZATIONS) == content


@pytest.mark.parametrize("form", ["file.yaml", "file.json"])
def test_what_was_exported_does_not_differ_from_the_server(full: Full, tmp_path: Path, form: str) -> None:
    plane, _ = full
    plane.done("export", tmp_path / form)
    assert plane.done("diff", tmp_path / form, "--prune") == "Nothing differs.\n"


def test_the_same_state_is_exported_as_the_same_bytes_without_a_secret(full: Full, tmp_path: Path) -> None:
    plane, content = full
    first = plane.done("export")
    assert first == plane.done("export")
    assert list(content["organizations"]) == sorted(content["organizations"])
    assert yaml.safe_load(first).keys() == content.keys()
    assert json.loads(plane.done("export", "--json")) == content


def written(directory: Path, organizations: dict[str, Any], **more: Any) -> Path:
    file = directory / "wanted.yaml"
    file.write_text(as_yaml({"format": 1, "organizations": organizations, **more}))
    return file


def test_what_is_only_on_the_server_is_left_alone_unless_it_is_pruned(stocked: Plane, tmp_path: Path) -> None:
    grant = {"meter": "images", "units": 5, "expires_at": "2040-01-01T00:00:00Z", "reason": "sorry"}
    had = {"name": "Lone", "entitlement": {"plan": "growth"}, "grants": [grant], "caps": {"api_calls": 7}}
    stocked.done("apply", written(tmp_path, {"lone": had}))
    key = stocked.ask("POST", "/v1/organizations/lone/keys", {"name": "of a job"})["id"]
    wanted = written(tmp_path, {"lone": {"grants": [], "caps": {"api_calls": 8}, "keys": {}}})
    assert "cap of api_calls: 7 -> 8" in stocked.done("apply", wanted)
    assert len(stocked.ask("GET", "/v1/organizations/lone/grants")["grants"]) == 1
    assert stocked.ask("GET", f"/v1/organizations/lone/keys/{key}")["state"] == "active"
    assert stocked.done("diff", wanted) == "Nothing differs.\n"
    shown = stocked.run("diff", wanted, "--prune", "--json")
    assert shown.exit_code == 3
    changes = [json.loads(line) for line in shown.stdout.splitlines()]
    removed = {each["what"] for each in changes if each["verb"] == "remove"}
    assert {"organization lone: grant", f"organization lone: key {key}"} <= removed
    assert not any(what.startswith("plan ") for what in removed)  # the file does not speak of plans


def test_a_pruned_organization_is_deleted_and_comes_back_when_it_is_named_again(full: Full, tmp_path: Path) -> None:
    plane, content = full
    everything = written(tmp_path, content["organizations"])
    plane.done(
        "apply", written(tmp_path, content["organizations"] | {"short-lived": {"entitlement": {"plan": "tiny"}}})
    )
    plane.export(ORGANIZATIONS + 1)
    everything = written(tmp_path, content["organizations"])
    assert plane.done("apply", everything, "--prune").startswith("- organization short-lived")
    assert plane.ask("GET", "/v1/organizations/short-lived")["deleted_at"] is not None
    again = written(tmp_path, {"short-lived": {"name": "Back", "entitlement": {"plan": "starter"}}})
    plane.done("apply", again)
    assert plane.ask("GET", "/v1/entitlements/short-lived")["plan"] == "starter"
    assert plane.done("diff", again) == "Nothing differs.\n"


def test_a_key_is_changed_by_its_id_and_one_that_is_nowhere_is_named(stocked: Plane, tmp_path: Path) -> None:
    stocked.done("apply", written(tmp_path, {"keyed": {"entitlement": {"plan": "growth"}}}))
    made = stocked.ask("POST", "/v1/organizations/keyed/keys", {"name": "old", "scopes": ["method:GET"], "user": "ann"})
    keys = {made["id"]: {"name": "new", "user": "ann", "enabled": False, "quotas": [{"meter": "images", "units": 3}]}}
    wanted = written(tmp_path, {"keyed": {"keys": keys}})
    stocked.done("apply", wanted)
    assert stocked.done("apply", wanted) == "Nothing differs: nothing was done.\n"
    key = stocked.ask("GET", f"/v1/organizations/keyed/keys/{made['id']}")
    assert (key["name"], key["state"], key["scopes"]) == ("new", "disabled", [])
    assert made["key"] not in stocked.done("export")
    nowhere = stocked.run("apply", written(tmp_path, {"keyed": {"keys": {"5sGvq0TzR2Xk": {"name": "x"}}}}))
    assert nowhere.exit_code == 1
    assert "! organization keyed: key 5sGvq0TzR2Xk: is not there, and its secret is in no file" in nowhere.stderr


def test_a_file_with_a_fault_is_refused_by_line_and_field_before_anything_is_done(
    stocked: Plane, tmp_path: Path
) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(
        "format: 1\norganizations:\n  first: {name: First}\n  second:\n    entitlement:\n      plan: startr\n"
        "      meters: {api_cals: 5}\n"
    )
    refused = stocked.run("apply", file)
    assert refused.exit_code == 2
    assert f"{file}:6: organizations.second.entitlement.plan: there is no plan startr to be given" in refused.stderr
    assert (
        f"{file}:7: organizations.second.entitlement.meters.api_cals: no plan has the meter api_cals" in refused.stderr
    )
    assert stocked.client.get("/v1/organizations/first").status_code == 404
    file.write_text("format: 1\norganizations:\n  first: {nam: First}\n  second: {grants: [{meter: x, units: 0}]}\n")
    refused = stocked.run("diff", file)
    assert refused.exit_code == 2
    assert f"{file}:3: organizations.first.nam: unknown field (did you mean name?)" in refused.stderr
    assert f"{file}:4: organizations.second.grants[0].units: should be greater than or equal to 1" in refused.stderr
    file.write_text("format: 1\norganizations: {a: {}}\n")
    (tmp_path / "twice.json").write_text('{"format": 1, "organizations": {"a": {}}}')
    refused = stocked.run("diff", tmp_path)
    assert f"{file}:2: organizations.a: is in {tmp_path / 'twice.json'}, too" in refused.stderr


def test_what_changed_meanwhile_is_left_alone_and_named_while_others_are_applied(
    stocked: Plane, tmp_path: Path
) -> None:
    stocked.done("apply", written(tmp_path, {org: {"entitlement": {"plan": "tiny"}} for org in ("race-a", "race-b")}))
    wanted = {org: {"name": "Wanted", "entitlement": {"plan": "growth"}} for org in ("race-a", "race-b")}
    with connected(str(stocked.client.base_url), ADMIN_ENV, Path()) as api:
        found = comparison.compare(api, written(tmp_path, wanted), prune=False)
        stocked.ask("PUT", "/v1/entitlements/race-a", {"plan": "starter"})
        results = list(applying.apply(api, found.plans, found.organizations))
    assert [result.outcome for result in results] == [
        Outcome.CONFLICT,
        Outcome.NOT_TRIED,
        Outcome.APPLIED,
        Outcome.APPLIED,
    ]
    assert stocked.ask("GET", "/v1/entitlements/race-a")["plan"] == "starter"
    assert stocked.ask("GET", "/v1/entitlements/race-b")["plan"] == "growth"


def test_a_catalogue_that_changed_meanwhile_is_left_alone_and_nothing_after_it_is_tried(
    stocked: Plane, tmp_path: Path
) -> None:
    plans = catalogue()
    wanted = {**plans, "tiny": plans["tiny"] | {"name": "Tiny two"}}
    with connected(str(stocked.client.base_url), ADMIN_ENV, Path()) as api:
        found = comparison.compare(api, written(tmp_path, {"later": {}}, plans=wanted), prune=False)
        stocked.ask("PUT", "/v1/plans", {"plans": {"tiny": plans["tiny"] | {"name": "Theirs"}}})
        results = list(applying.apply(api, found.plans, found.organizations))
    assert [result.outcome for result in results] == [Outcome.CONFLICT, Outcome.NOT_TRIED]
    assert "The plan tiny has the version " in str(results[0].detail)
    stocked.done("apply", written(tmp_path, {}, plans=plans))


def test_what_a_token_may_not_do_is_refused_and_what_was_done_is_said(stocked: Plane, tmp_path: Path) -> None:
    stocked.done("apply", written(tmp_path, {org: {"name": "Old"} for org in ("may-a", "may-b")}))
    rights = ["organizations:read", "organizations:write", "entitlements:read", "grants:read", "keys:read"]
    content = {"name": "names-only", "permissions": [*rights, "alerts:read", "plans:read"]}
    token = stocked.ask("POST", "/v1/service-tokens", content)["token"]
    item = {"name": "New", "entitlement": {"plan": "tiny"}, "alerts": [50]}
    wanted = written(tmp_path, {"may-a": item, "may-b": {"name": "New"}})
    result = stocked.run("apply", wanted, "--json", token=token)
    assert result.exit_code == 1
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert [each["outcome"] for each in told] == ["applied", "refused", "not tried", "applied"]
    assert "entitlements:write" in told[1]["detail"]


def test_what_a_command_made_or_changed_is_printed_as_json_without_a_token(stocked: Plane, tmp_path: Path) -> None:
    made = json.loads(stocked.done("org", "create", "as-json", "--plan", "tiny", "--json"))
    assert (made["organization"]["id"], made["entitlement"]["plan"]) == ("as-json", "tiny")
    key = json.loads(stocked.done("keys", "create", "as-json", "--json"))
    revoked = json.loads(stocked.done("keys", "revoke", "as-json", key["id"], "--json"))
    assert (revoked["id"], revoked["state"]) == (key["id"], "revoked")
    file = tmp_path / "token"
    token = json.loads(stocked.done("service-tokens", "create", "j", "--to-file", file, "--role", "viewer", "--json"))
    assert token["name"] == "j"
    assert "token" not in token
    assert file.read_text().strip() not in json.dumps(token)


def test_one_organization_is_exported_without_the_plans_and_the_others_files_stay(full: Full, tmp_path: Path) -> None:
    plane, content = full
    org = "org-003"
    one = {"format": 1, "organizations": {org: content["organizations"][org]}}
    assert json.loads(plane.done("export", "--org", org, "--json")) == one
    assert yaml.safe_load(plane.done("export", "--org", org)).keys() == one.keys()
    plane.done("export", tmp_path)
    files = sorted(tmp_path.rglob("*.yaml"))
    (tmp_path / "organizations" / f"{org}.yaml").unlink()
    plane.done("export", tmp_path, "--org", org)
    assert sorted(tmp_path.rglob("*.yaml")) == files
    assert plane.done("diff", tmp_path, "--prune") == "Nothing differs.\n"
    missing = plane.run("export", "--org", "nobody")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "there is no organization nobody" in missing.stderr


def test_a_day_that_a_file_has_something_end_at_is_its_last_second(stocked: Plane, tmp_path: Path) -> None:
    grants = [{"meter": "api_calls", "units": 5, "expires_at": "2090-12-31", "reason": "an outage"}]
    wanted = written(tmp_path, {"ending": {"entitlement": {"plan": "tiny"}, "grants": grants}})
    stocked.done("apply", wanted)
    [grant] = stocked.ask("GET", "/v1/organizations/ending/grants")["grants"]
    assert grant["expires_at"] == "2090-12-31T23:59:59Z"
    assert stocked.done("diff", wanted) == "Nothing differs.\n"


def test_an_export_that_is_cut_off_leaves_the_file_of_before_whole(stocked: Plane, tmp_path: Path) -> None:
    file = tmp_path / "all.json"
    stocked.done("export", file)
    before = file.read_text()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) - 100, limit[1]))  # as of a disk that is full
    try:
        cut = stocked.run("export", file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert (cut.exit_code, "cannot be written: File too large" in cut.stderr) == (1, True)
    assert [(each, each.read_text()) for each in tmp_path.iterdir()] == [(file, before)]


def test_an_organization_with_more_keys_than_a_page_has_is_exported_with_all_of_them(stocked: Plane) -> None:
    hashes = [{"hash": sha256(f"{n}".encode()).hexdigest(), "name": f"key {n}"} for n in range(150)]
    stocked.ask("PUT", "/v1/organizations/many-keys", {"name": "Many"})
    stocked.ask("POST", "/v1/organizations/many-keys/keys/import", {"keys": hashes})
    form = json.loads(stocked.done("export", "--org", "many-keys", "--json"))["organizations"]["many-keys"]
    assert {key["name"] for key in form["keys"].values()} == {each["name"] for each in hashes}


def test_a_suspension_of_who_has_no_entitlement_is_exported_and_applied(stocked: Plane, tmp_path: Path) -> None:
    stocked.ask("PUT", "/v1/organizations/unpaid", {"name": "Unpaid"})
    stocked.ask("POST", "/v1/entitlements/unpaid/suspend", {"reason": "unpaid"})
    stocked.done("export", tmp_path / "unpaid.yaml", "--org", "unpaid")
    assert yaml.safe_load((tmp_path / "unpaid.yaml").read_text())["organizations"]["unpaid"]["suspended"]
    stocked.ask("POST", "/v1/entitlements/unpaid/resume", {"reason": "paid"})
    assert "is suspended" in stocked.done("apply", tmp_path / "unpaid.yaml")
    assert stocked.done("diff", tmp_path / "unpaid.yaml") == "Nothing differs.\n"
