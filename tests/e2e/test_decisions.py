"""A client that was refused gives the id that it read to whoever can look it up."""

from typing import Any

import httpx

from tests.e2e.running import Eventually, Up


def test_the_request_id_of_an_answer_leads_to_why_it_was_decided_so(stack: Up, eventually: Eventually) -> None:
    org = stack.organization_with_100_calls()
    with stack.client(org) as client:
        admitted = client.get("/get")
        for _ in range(99):
            client.get("/get")

    def explained(request_id: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {stack.ready['admin_token']}"}
        answer = httpx.get(f"{stack.ready['control']}/v1/decisions/{request_id}", headers=headers)
        return dict(answer.json()["decisions"][0]) if answer.status_code == 200 else {}

    def refused_and_explained() -> bool:
        """A refusal is dropped where Redis answers late, as on a loaded machine: the next one is kept."""
        with stack.client(org) as client:
            refused = client.get("/get", headers={"X-Request-Id": "order-7"})
        assert refused.status_code == 429
        assert refused.json()["correlation_id"] == refused.headers["x-request-id"] == "order-7"
        return bool(explained("order-7"))

    assert eventually(refused_and_explained)
    decision = explained("order-7")
    assert (decision["org"], decision["outcome"], decision["doubts"]) == (org, "refused", [])
    meter = next(rule for rule in decision["rules"] if rule["rule"] == "meter")
    assert (meter["before"]["remaining"], meter["short"]) == (0, 1)
    assert decision["remedy"][0]["text"] == "Grant 1 api_calls."
    assert eventually(lambda: bool(explained(admitted.headers["x-request-id"])))
    first = explained(admitted.headers["x-request-id"])
    assert (first["outcome"], first["charges"]) == ("admitted", {"api_calls": 1})
    assert [rule["after"]["remaining"] for rule in first["rules"] if rule["rule"] == "meter"] == [99]

    def supposed(path: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {stack.ready['admin_token']}"}
        asked = {"org": org, "method": "GET", "path": path}
        answer = httpx.post(f"{stack.ready['control']}/v1/decisions/explain", headers=headers, json=asked)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    now = supposed("/get")
    assert (now["outcome"], now["verdict"], now["charges"]) == ("refused", "exhausted", {"api_calls": 1})
    assert (now["route"], now["doubts"]) == (decision["route"], [])
