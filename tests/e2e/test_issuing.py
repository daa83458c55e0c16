"""The embedded stack's control plane issues tokens, and its gateway believes them."""

import json
import stat

import httpx

from tests.e2e.running import Command, StartUp, Up


def test_the_gateway_believes_a_token_that_the_control_plane_issues(stack: Up, quotagate: Command) -> None:
    where = ("--data-dir", str(stack.data_dir))
    issued = quotagate("token", "issue", "acme", "--user", "u7", "--role", "cook", "--ttl", "90s", *where)
    assert issued.returncode == 0, issued.stderr
    headers = {"Authorization": f"Bearer {issued.stdout.strip()}"}
    answer = httpx.get(f"{stack.ready['gateway']}/anything", headers=headers)
    assert (answer.status_code, answer.json()["headers"]["X-Quota-Org"]) == (200, "acme")
    damaged = {"Authorization": headers["Authorization"][:-6] + "AAAAAA"}
    assert httpx.get(f"{stack.ready['gateway']}/anything", headers=damaged).status_code == 401
    with stack.client("acme") as client:
        assert client.get("/anything").status_code == 200, "and those of its own secret as ever"


def test_signing_keys_are_listed_rotated_and_retired_by_commands(up: StartUp, quotagate: Command) -> None:
    stack = up("signing")

    def keys(*arguments: str) -> list[str]:
        done = quotagate("signing-keys", *arguments, "--data-dir", str(stack.data_dir))
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    [first] = keys("list")
    [made] = keys("rotate")
    again = quotagate("signing-keys", "rotate", "--data-dir", str(stack.data_dir))
    assert (again.returncode, "answered 409" in again.stderr) == (1, True)
    assert [line.split()[2] for line in keys("list")] == ["signing", "waiting"]
    assert keys("retire", first.split()[0])[0].split()[2] == "retired"
    assert [json.loads(line)["state"] for line in keys("list", "--json")] == ["retired", "signing"]
    assert keys("list")[1].split()[0] == made.split()[0]
    assert keys("reencrypt") == ["0 private keys are sealed with the first master key now"]


def test_the_master_key_is_the_control_planes_alone_and_stays_for_the_next_run(stack: Up) -> None:
    file = stack.data_dir / "secrets.json"
    master_key = json.loads(file.read_text())["master_key"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    holders = {line for process, line in stack.command_lines().items() if master_key in process.environ().values()}
    assert len(holders) == 1
    assert " control " in holders.pop()
    assert master_key not in "".join(log.read_text() for log in (stack.data_dir / "logs").glob("*.log"))
