"""The promise: several gateways and control planes of one stack count as one, and share the work."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.e2e.running import SETTLE_SECONDS, Eventually, StartUp, client_of


def test_two_gateways_and_two_control_planes_share_one_quota_and_the_work(up: StartUp, eventually: Eventually) -> None:
    stack = up("many", "--gateways", "2", "--control-planes", "2")
    gateways, controls = stack.ready["gateways"], stack.ready["controls"]
    assert (gateways[0], controls[0]) == (stack.ready["gateway"], stack.ready["control"])
    assert len(set(gateways)) == len(set(controls)) == 2
    metrics = stack.ready["metrics_of_gateways"]
    assert (metrics[0], len(set(metrics))) == (stack.ready["metrics"], 2)
    assert all("quotagate_" in httpx.get(each, timeout=SETTLE_SECONDS).text for each in metrics)
    assert " ".join(metrics) in stack.output.read_text()

    def ask(number: int) -> tuple[str, int]:
        """Its gateway, and what that one decided."""
        gateway = gateways[number % 2]
        with client_of(gateway, stack.token("tiny")) as client:
            return gateway, client.get("/get").status_code

    with ThreadPoolExecutor(8) as clients:
        answers = Counter(clients.map(ask, range(150)))
    assert sum(count for (_, status), count in answers.items() if status == 200) == 100
    assert sum(count for (_, status), count in answers.items() if status == 429) == 50
    assert all(answers[gateway, 200] for gateway in gateways)

    def shares() -> list[dict[str, int]]:
        return [httpx.get(f"{control}/-/ready", timeout=SETTLE_SECONDS).json()["writer"] for control in controls]

    assert eventually(lambda: shares() == [{"shards": 16, "writers": 2}] * 2), shares()
    admin = {"Authorization": f"Bearer {stack.ready['admin_token']}"}

    def used(control: str) -> int:
        asked = {"org": "tiny", "bucket": "day"}
        answer = httpx.get(f"{control}/v1/usage", params=asked, headers=admin, timeout=SETTLE_SECONDS).json()
        return sum(each["units"] for each in answer["meters"])

    assert eventually(lambda: [used(control) for control in controls] == [100, 100])
    acme = httpx.get(f"{controls[1]}/v1/entitlements/acme", headers=admin, timeout=SETTLE_SECONDS).json()
    assert acme["plan"] == "starter"
