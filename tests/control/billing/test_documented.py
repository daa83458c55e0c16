"""The control API answers as its own OpenAPI document says, whatever it is asked: Schemathesis makes the requests."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed
from hypothesis import settings as example_settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from devstack import token_mint
from tests.control.access.matrix import is_stream
from tests.control.billing.shop import Shop
from tests.control.plane import ADMIN_TOKEN, JWT_SECRET

EXAMPLES = {  # of each operation; most of them refuse an organization, whatever else is asked
    "admin": {GenerationMode.POSITIVE: 5, GenerationMode.NEGATIVE: 3},
    "organization": {GenerationMode.POSITIVE: 2, GenerationMode.NEGATIVE: 1},
}
SEED = 20_261_129
TIMEOUT_SECONDS = 60


class Undocumented(AssertionError):
    pass


def success_is_documented(_: Any, response: Any, case: Any) -> None:
    """`default` stands for problems; what goes well has its status named."""
    documented = case.operation.definition.raw["responses"]
    if response.status_code < 400 and str(response.status_code) not in documented:
        raise Undocumented(f"{case.operation.label} answers {response.status_code}, which is not documented")
    if response.status_code >= 400 and response.headers["content-type"] != ["application/problem+json"]:
        raise Undocumented(f"{case.operation.label} answers {response.status_code} without a problem document")


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    success_is_documented,
]


@dataclass
class Asker:
    """Calls each operation, with values that the document allows and with others."""

    url: str
    token: str
    examples: Mapping[GenerationMode, int]
    known: Mapping[str, Sequence[str]]
    """Values of path parameters that are there."""
    statuses: Counter[int] = field(default_factory=Counter)
    """How often each was answered."""

    def ask_everything(self, document: dict[str, Any]) -> list[str]:
        """What is not as documented, of each operation the first."""
        faults = []
        for operations in schemathesis.openapi.from_dict(document).get_all_operations():
            assert isinstance(operations, Ok), operations
            operation = operations.ok()
            if is_stream(operation.definition.raw):
                continue  # it does not end by itself: tests/control/attention reads it
            for mode, examples in self.examples.items():
                try:
                    self._ask(operation, mode, examples)
                except Unsatisfiable:
                    pass  # it takes nothing, so nothing can be wrong
                except FailureGroup as e:
                    faults.append(f"{operation.label} ({mode.value}): {e}")
        return faults

    def _ask(self, operation: Any, mode: GenerationMode, examples: int) -> None:
        @seed(SEED)
        @example_settings(
            max_examples=examples,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(data=st.data())
        def ask(data: Any) -> None:
            case = data.draw(operation.as_strategy(generation_mode=mode))
            for name, values in self.known.items():
                if name in (case.path_parameters or {}) and data.draw(st.booleans()):
                    case.path_parameters[name] = data.draw(st.sampled_from(values))
            if isinstance(case.body, dict) and "plan" in case.body and data.draw(st.booleans()):
                case.body["plan"] = data.draw(st.sampled_from(["starter", "growth"]))
            headers = {"authorization": f"Bearer {self.token}"}
            response = case.call(base_url=self.url, headers=headers, timeout=TIMEOUT_SECONDS)
            self.statuses[response.status_code] += 1
            case.validate_response(response, checks=CHECKS)

        ask()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("who", ["admin", "organization"])
async def test_every_operation_answers_as_documented_to_values_of_every_kind(shop: Shop, who: str) -> None:
    org = await shop.signed_up("growth")
    document = (await shop.admin.get("/openapi.json")).json()
    token = ADMIN_TOKEN
    if who == "organization":
        token = token_mint.mint(org, JWT_SECRET, now=time.time(), ttl=timedelta(hours=1))
    url = str(shop.admin.base_url).rstrip("/")
    asker = Asker(url, token, EXAMPLES[who], {"org": [org]})
    faults = await asyncio.to_thread(asker.ask_everything, document)
    assert not faults, "\n\n".join(faults)
    served = sum(count for status, count in asker.statuses.items() if status < 300)
    assert served > 10, asker.statuses


async def test_a_text_that_no_table_can_hold_is_refused_wherever_it_stands(shop: Shop) -> None:
    org = await shop.signed_up("starter")
    nul = "a%00b"
    reads = [
        f"/api/admin/webhooks?before={nul}",
        f"/v1/organizations/{org}/invoices?before={nul}",
        f"/v1/organizations/{org}/billing-entries?before={nul}",
        f"/v1/journal?org={nul}",
        f"/v1/organizations?after={nul}",
        f"/v1/entitlements/{nul}",
        f"/v1/organizations/{nul}",
    ]
    for path in reads:
        response = await shop.admin.get(path)
        assert response.status_code in (400, 404, 422), (path, response.status_code)
    writes = [
        ("PUT", f"/v1/organizations/{org}", {"name": "a\0b"}),
        ("POST", f"/v1/organizations/{org}/grants", {"meter": "api_calls", "units": 5, "reason": "a\0b"}),
        ("POST", f"/v1/organizations/{org}/credits", {"amount_minor": 5, "reason": "a\0b"}),
        ("POST", "/v1/usage", {"org": org, "meter": "api_calls", "units": 1, "idempotency_key": "a\0b"}),
    ]
    for method, path, body in writes:
        response = await shop.admin.request(method, path, json=body)
        assert response.status_code in (400, 422), (path, response.status_code, response.text)
