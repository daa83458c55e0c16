"""A client that a kept generator makes of docs/openapi.json works against a running control plane."""

import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest

from tests.control.plane import ADMIN_TOKEN
from tests.quotagate.configuration.planes import Plane

ROOT = Path(__file__).parents[2]
GENERATOR = ROOT / ".venv/clients/bin/openapi-python-client"
PACKAGE = "generated_quotagate_client"

pytestmark = pytest.mark.skipif(not GENERATOR.exists(), reason="`make client-tools` installs the generator")


class Generated:
    """The client, and the endpoints of it by the operationId of each."""

    def __init__(self, package: ModuleType) -> None:
        self.package = package
        names = [each.name for each in pkgutil.walk_packages(package.__path__, f"{PACKAGE}.")]
        modules = {name: importlib.import_module(name) for name in names}  # all of it can be imported
        self.endpoints = {
            name.rpartition(".")[2]: module for name, module in modules.items() if hasattr(module, "sync_detailed")
        }
        self.models: Any = modules[f"{PACKAGE}.models"]
        self.client: Any = modules[f"{PACKAGE}.client"]

    def calls(self, base_url: str, token: str) -> "Calls":
        return Calls(self, self.client.AuthenticatedClient(base_url=base_url, token=token))


@dataclass(frozen=True)
class Calls:
    """Calls of one client, by the operationId of each."""

    generated: Generated
    client: Any

    def __call__(self, operation: str, *path: str, **arguments: Any) -> Any:
        return self.generated.endpoints[operation].sync_detailed(*path, client=self.client, **arguments)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generated]:
    directory = tmp_path_factory.mktemp("client")
    settings = directory / "settings.yaml"
    settings.write_text(f"package_name_override: {PACKAGE}\npost_hooks: []\n")
    document_file, package = str(ROOT / "docs/openapi.json"), str(directory / PACKAGE)
    argv = [str(GENERATOR), "generate", "--path", document_file, "--config", str(settings), "--meta", "none"]
    done = subprocess.run(
        [*argv, "--output-path", package, "--fail-on-warning"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(directory))
    yield Generated(importlib.import_module(PACKAGE))
    sys.path.remove(str(directory))
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


@pytest.fixture
def call(generated: Generated, plane: Plane) -> Calls:
    return generated.calls(str(plane.client.base_url), ADMIN_TOKEN)


def test_the_generated_client_has_every_operation_by_its_name(generated: Generated) -> None:
    from control.openapi import document

    operations = {each["operationId"] for methods in document()["paths"].values() for each in methods.values()}
    assert generated.endpoints.keys() == operations


def test_it_makes_an_organization_gives_it_a_plan_and_a_key_and_reads_what_was_used(
    generated: Generated, call: Calls
) -> None:
    models, org = generated.models, f"made-{uuid4().hex[:8]}"
    made = call("put_organization", org, body=models.OrganizationBody(name="Made"))
    assert (made.status_code, made.parsed.name) == (201, "Made")
    given = call("set_entitlement", org, body=models.ScheduledBody(plan="tiny"))
    assert (given.parsed.plan, given.parsed.meters[0].remaining) == ("tiny", 100)
    key = call("create_key", org, body=models.KeyBody(name="CI", scopes=["method:GET"]))
    assert key.parsed.key.startswith("qg_")
    assert key.parsed.state is models.NewKeyViewState.ACTIVE
    record = {"idempotency_key": uuid4().hex, "meter": "api_calls", "units": 40}
    body = models.UsageRecord.from_dict(record | {"timestamp": datetime.now(UTC).isoformat()})
    reported = call("report_usage", body=body, org=org)
    assert reported.status_code == 200, reported.content
    read = call("get_entitlement", org)
    assert read.parsed.meters[0].remaining == 60


def test_it_reads_a_list_page_by_page(generated: Generated, call: Calls) -> None:
    models, prefix = generated.models, uuid4().hex[:8]
    orgs = [f"{prefix}-{n}" for n in range(5)]
    for org in orgs:
        call("put_organization", org, body=models.OrganizationBody(name=org))
    found: list[str] = []
    page: Any = None
    while page is None or page.next_ is not None:
        more = {} if page is None else {"after": page.next_}
        page = call("list_organizations", limit=2, **more).parsed
        found += [each.id for each in page.organizations]
    assert [org for org in found if org.startswith(prefix)] == orgs
    assert len(found) == len(set(found))


def test_it_reads_an_error_as_a_problem_document(generated: Generated, plane: Plane, call: Calls) -> None:
    models = generated.models
    missing = call("get_organization", "nobody")
    assert isinstance(missing.parsed, models.ProblemDocument)
    assert (missing.status_code, missing.parsed.status) == (404, 404)
    wrong = call("set_entitlement", "nobody", body=models.ScheduledBody(plan="Not A Plan"))
    assert (wrong.status_code, wrong.parsed.errors[0]["field"]) == (422, "body.plan")
    stranger = generated.calls(str(plane.client.base_url), "of-nobody")
    assert stranger("list_plans").parsed.status == 401
