"""`quotagate people` against the running stack."""

import json
import stat
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.e2e.running import Command, Up


@pytest.fixture
def people(stack: Up, quotagate: Command) -> Command:
    return lambda *arguments: quotagate("people", *arguments, "--data-dir", str(stack.data_dir))


def test_a_person_is_exported_into_a_private_file_and_erased(stack: Up, people: Command, tmp_path: Path) -> None:
    user = f"user_{uuid4().hex[:8]}"
    email, file = f"{user}@example.com", tmp_path / "person.json"
    with httpx.Client(
        base_url=stack.ready["control"], headers={"authorization": f"Bearer {stack.ready['admin_token']}"}
    ) as admin:
        admin.put(f"/v1/users/{user}", json={"email": email, "name": "Ada"}).raise_for_status()
        admin.put(f"/v1/organizations/acme/members/{user}", json={"role": "member"}).raise_for_status()
        exported = people("export", "--email", email, "--to-file", str(file))
        assert exported.returncode == 0, exported.stderr
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        person = json.loads(file.read_text())
        assert (person["users"], person["rows"]["membership"][0]["org"]) == ([user], "acme")
        again = people("export", "--email", email, "--to-file", str(file))
        assert (again.returncode, json.loads(file.read_text())) == (1, person), "a file that is there is not replaced"
        asked = people("erase", "--user", user)
        assert asked.returncode == 1, "nobody said yes"
        assert "the id stays, without address and name" in asked.stderr
        assert admin.get(f"/v1/users/{user}").status_code == 200
        erased = people("erase", "--user", user, "--reason", "a letter", "--yes", "--json")
        assert erased.returncode == 0, erased.stderr
        assert json.loads(erased.stdout)["organizations"] == ["acme"]
        assert admin.get(f"/v1/users/{user}").status_code == 404
        assert admin.get("/v1/people").json()["requests"][0]["reason"] == "a letter"
    gone = people("export", "--email", email, "--to-file", str(tmp_path / "gone.json"))
    assert gone.returncode == 1
    assert "Nothing is stored of such a person." in gone.stderr
    assert not (tmp_path / "gone.json").exists()
