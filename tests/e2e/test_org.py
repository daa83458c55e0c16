"""`quotagate org` against the running stack."""

import json
from uuid import uuid4

import pytest

from tests.e2e.running import Command, Up


@pytest.fixture
def org(stack: Up, quotagate: Command) -> Command:
    return lambda *arguments: quotagate("org", *arguments, "--data-dir", str(stack.data_dir))


def test_a_new_organization_is_listed_and_shown_with_what_it_has_left(org: Command) -> None:
    name = f"org-{uuid4().hex[:8]}"
    made = org("create", name, "--name", "Quite New", "--plan", "tiny")
    assert made.returncode == 0, made.stderr
    assert [line.split() for line in org("list").stdout.splitlines()].count([name, "Quite", "New"]) == 1
    shown = org("show", name).stdout
    assert "Quite New" in org("create", name).stdout  # without a name it keeps the one it has
    assert "tiny (active, HARD_STOP)" in shown
    assert "100 of 100 left" in shown
    assert json.loads(org("show", name, "--json").stdout)["plan"] == "tiny"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "nobody"], "answered 404"),
        (["create", "acme", "--plan", "golden"], "No available plan has the code golden"),
    ],
)
def test_a_refusal_of_the_control_plane_is_told_in_one_line(org: Command, arguments: list[str], message: str) -> None:
    refused = org(*arguments)
    assert refused.returncode == 1
    assert message in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
