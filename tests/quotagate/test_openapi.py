"""The control API's document: it is kept, it is the one that is served, and a change that breaks clients is refused."""

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from control.openapi import described, document
from quotagate.compatibility import breaks
from quotagate.main import app

KEPT = Path(__file__).parents[2] / "docs" / "openapi.json"
Edit = Callable[[dict[str, Any]], object]
PUT_ORG = "PUT /v1/organizations/{org}"


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(KEPT.read_text(encoding="utf-8"))
    return content


def schema(content: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = content["components"]["schemas"][name]
    return found


def test_the_kept_document_is_that_of_this_version(kept: dict[str, Any]) -> None:
    assert document() == kept, "run `quotagate openapi docs/openapi.json`"


def test_it_is_made_once_in_a_process_for_all_apps() -> None:
    assert described().openapi() is described().openapi()


BREAKING: list[tuple[Edit, str]] = [
    (lambda new: new["paths"].pop("/v1/plans"), "GET /v1/plans is gone"),
    (lambda new: new["paths"]["/v1/plans"].pop("put"), "PUT /v1/plans is gone"),
    (
        lambda new: (
            schema(new, "OrganizationBody")["properties"].update(size={})
            or schema(new, "OrganizationBody")["required"].append("size")
        ),
        f"{PUT_ORG}: body.size is required",
    ),
    (
        lambda new: schema(new, "OrganizationBody")["properties"]["name"].update(type="integer"),
        f"{PUT_ORG}: body.name may not be string any more",
    ),
    (
        lambda new: schema(new, "OrganizationView")["properties"].pop("name"),
        "GET /v1/organizations/{org}: 200.name is gone",
    ),
    (
        lambda new: schema(new, "OrganizationView")["required"].remove("name"),
        "GET /v1/organizations/{org}: 200.name may be missing",
    ),
    (
        lambda new: schema(new, "PlanView")["properties"]["version"].update(type=["integer", "null"]),
        "GET /v1/plans: 200.plans[].version may be null",
    ),
    (
        lambda new: new["paths"]["/v1/organizations"]["get"]["parameters"].pop(),
        "GET /v1/organizations: the parameter deleted is gone",
    ),
    (
        lambda new: new["paths"]["/v1/plans"]["get"].update(
            parameters=[{"in": "query", "name": "q", "required": True}]
        ),
        "GET /v1/plans: the parameter q is required",
    ),
    (
        lambda new: new["paths"]["/v1/organizations/{org}"]["put"]["responses"].pop("201"),
        f"{PUT_ORG}: the answer 201 is gone",
    ),
    (
        lambda new: new["paths"]["/v1/plans"]["get"].update(operationId="plans"),
        "GET /v1/plans is called plans, and no longer list_plans",
    ),
    (
        lambda new: schema(new, "EntitlementPatch")["properties"]["status"]["anyOf"][0]["enum"].remove("grace"),
        "PATCH /v1/entitlements/{org}: body.status may not be grace any more",
    ),
]


@pytest.mark.parametrize(("edit", "said"), BREAKING, ids=[said for _, said in BREAKING])
def test_what_breaks_a_client_is_named(kept: dict[str, Any], edit: Edit, said: str) -> None:
    new = copy.deepcopy(kept)
    edit(new)
    assert said in list(breaks(kept, new))


def test_what_is_added_breaks_nobody(kept: dict[str, Any]) -> None:
    new = copy.deepcopy(kept)
    new["paths"]["/v2"] = {"get": {}}
    schema(new, "OrganizationBody")["properties"]["size"] = {"type": "integer"}
    schema(new, "OrganizationView")["properties"]["size"] = {"type": "integer"}
    schema(new, "OrganizationView")["required"].append("size")
    new["paths"]["/v1/plans"]["get"]["parameters"] = [{"in": "query", "name": "q", "required": False}]
    assert list(breaks(kept, new)) == []
    assert list(breaks(kept, kept)) == []


def test_a_breaking_document_is_written_only_with_a_new_major_version(kept: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "openapi.json"
    earlier = copy.deepcopy(kept)
    earlier["paths"]["/v1/gone"] = {"get": {}}
    file.write_text(json.dumps(earlier))
    refused = CliRunner().invoke(app, ["openapi", str(file)])
    assert refused.exit_code == 1
    assert "GET /v1/gone is gone" in refused.stderr
    assert json.loads(file.read_text()) == earlier
    earlier["info"]["version"] = "0.9"
    file.write_text(json.dumps(earlier))
    assert CliRunner().invoke(app, ["openapi", str(file)]).exit_code == 0
    assert json.loads(file.read_text()) == kept


def test_each_operation_has_a_name_of_its_own_and_says_what_it_is_for_and_how_it_fails(kept: dict[str, Any]) -> None:
    operations = {
        f"{method} {path}": each for path, methods in kept["paths"].items() for method, each in methods.items()
    }
    names = [each["operationId"] for each in operations.values()]
    assert len(set(names)) == len(names)
    assert [name for name in names if not re.fullmatch(r"[a-z]+(_[a-z]+)+", name)] == []
    for where, each in operations.items():
        assert len(each["tags"]) == 1, where
        assert each["summary"], where
        assert each["description"], where
        assert "application/problem+json" in each["responses"]["default"]["content"], where
        answers = [answer for status, answer in each["responses"].items() if status.startswith("2")]
        contents = [content for answer in answers for content in answer.get("content", {}).values()]
        assert all(content.get("schema") for content in contents), where
        assert contents or each["responses"].keys() & {"204"}, where


def test_no_schema_is_named_by_where_it_is_in_the_code(kept: dict[str, Any]) -> None:
    assert [name for name in kept["components"]["schemas"] if not re.fullmatch(r"[A-Z][A-Za-z]+", name)] == []
