"""API keys of a test, made over the control API."""

from typing import Any

from httpx import AsyncClient


async def created(admin: AsyncClient, org: str, **content: object) -> dict[str, Any]:
    answer = await admin.post(f"/v1/organizations/{org}/keys", json=content)
    assert answer.status_code == 201, answer.text
    key: dict[str, Any] = answer.json()
    return key
