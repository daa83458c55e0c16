"""A customer is given a key in three commands: `quotagate keys create`, a request, `quotagate keys revoke`."""

import json
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import pytest

from tests.e2e.running import Command, Up


@pytest.fixture
def keys(stack: Up, quotagate: Command) -> Command:
    return lambda *arguments: quotagate("keys", *arguments, "--data-dir", str(stack.data_dir))


@pytest.fixture
def org(stack: Up, quotagate: Command) -> str:
    name = f"org-{uuid4().hex[:8]}"
    made = quotagate("org", "create", name, "--plan", "tiny", "--data-dir", str(stack.data_dir))
    assert made.returncode == 0, made.stderr
    return name


def status(stack: Up, key: str) -> int:
    return stack.call(key).status_code


def test_a_customer_has_a_key_that_works_until_it_is_revoked(stack: Up, keys: Command, org: str) -> None:
    made = keys("create", org, "--name", "CI", "--quota", "api_calls=50/3600")
    assert made.returncode == 0, made.stderr
    key = made.stdout.removesuffix("\n")  # all of it: `KEY=$(quotagate keys create …)`
    assert status(stack, key) == 200
    listed = keys("list", org).stdout
    key_id = listed.split()[0]
    assert key_id in made.stderr
    assert key not in listed + made.stderr
    revoked = keys("revoke", org, key_id)
    assert revoked.returncode == 0, revoked.stderr
    assert status(stack, key) == 401


def test_a_rolled_key_and_its_successor_both_work(stack: Up, keys: Command, org: str) -> None:
    old = json.loads(keys("create", org, "--json").stdout)
    rolled = keys("roll", org, old["id"], "--json")
    assert rolled.returncode == 0, rolled.stderr
    assert [status(stack, old["key"]), status(stack, json.loads(rolled.stdout)["key"])] == [200, 200]


def test_hashes_of_a_file_are_imported(keys: Command, org: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.csv"
    rows = [f"{sha256(f'{org} {n}'.encode()).hexdigest()},key {n},u{n}" for n in range(3)]
    file.write_text("\n".join(["hash,name,user", *rows]))
    for _ in range(2):
        imported = keys("import", org, str(file))
        assert (imported.returncode, imported.stdout) == (0, f"3 keys are {org}'s.\n"), imported.stderr
    assert "key 2" in keys("list", org).stdout
    file.write_text("digest\n1")
    assert "has no column `hash`" in keys("import", org, str(file)).stderr


def test_a_key_is_made_with_a_rate_of_its_own(stack: Up, keys: Command, org: str) -> None:
    made = json.loads(keys("create", org, "--rate", "2/3600/2", "--json").stdout)
    assert made["rate"] == {"requests": 2, "seconds": 3600.0, "burst": 2}
    assert [status(stack, made["key"]) for _ in range(3)] == [200, 200, 429]


@pytest.mark.parametrize(("option", "text"), [("--quota", "api_calls"), ("--rate", "5"), ("--rate", "5/x")])
def test_what_is_no_limit_is_refused_by_its_option(keys: Command, org: str, option: str, text: str) -> None:
    assert option in keys("create", org, option, text).stderr
