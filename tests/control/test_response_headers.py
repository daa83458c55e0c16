"""What each answer of the control port tells a browser (docs/threat-model.md)."""

import pytest
from httpx import ASGITransport, AsyncClient

from control.app import build, opened
from control.http.context import Context
from control.settings.control_plane import Settings
from tests.control.plane import ADMIN_TOKEN

ALL = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
CLOSED = "default-src 'none'; frame-ancestors 'none'"
ANSWERS = {
    "/v1/plans": 200,
    "/v1/plans/none": 404,
    "/v1/nothing": 404,
    "/-/ready": 200,
    "/docs": 200,
    "/console": 303,
    "/console/sign-in": 200,
    "/portal": 303,
    "/console/static/icon.svg": 200,
    "/portal/quotagate-usage.js": 200,
}


async def answers_of(context: Context) -> dict[str, tuple[int, dict[str, str]]]:
    headers = {"authorization": f"Bearer {ADMIN_TOKEN}"}
    async with AsyncClient(transport=ASGITransport(build(context)), base_url="http://x", headers=headers) as client:
        answers = [(path, await client.get(path)) for path in ANSWERS]
    return {path: (answer.status_code, dict(answer.headers)) for path, answer in answers}


async def test_each_answer_is_taken_for_what_it_is_and_is_in_no_frame(context: Context) -> None:
    for path, (status, headers) in (await answers_of(context)).items():
        assert ALL.items() <= headers.items(), (path, status)
        policy = headers["content-security-policy"].split("; ")
        assert policy[0] == "default-src 'none'", path
        assert "frame-ancestors 'none'" in policy, path
        is_file = path.endswith((".svg", ".js"))
        if is_file or path.startswith(("/v1", "/-")):
            assert policy == CLOSED.split("; "), path
        if not is_file:
            assert headers["cache-control"] == "no-store", path
        assert "strict-transport-security" not in headers, "browsers come without TLS here"


@pytest.mark.parametrize(("public_url", "strict"), [("https://console.example.com", True), ("http://localhost", False)])
async def test_browsers_that_come_by_tls_are_told_to_stay_with_it(
    settings: Settings, public_url: str, strict: bool
) -> None:
    signin = settings.signin.model_copy(update={"public_url": public_url})
    async with opened(settings.model_copy(update={"signin": signin})) as context:
        for path, (_, headers) in (await answers_of(context)).items():
            assert (headers.get("strict-transport-security") == "max-age=31536000") is strict, path
