"""What an admin does by the API: looks at the effect, confirms it, undoes it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from httpx import AsyncClient, Response


async def nothing() -> None:
    pass


@dataclass(frozen=True)
class Admin:
    client: AsyncClient
    settled: Callable[[], Awaitable[None]] = nothing
    """Waits for all that follows."""

    async def preview(self, org: str, name: str, **fields: Any) -> dict[str, Any]:
        answer = await self.client.post(f"/v1/organizations/{org}/actions/{name}/preview", json={"fields": fields})
        assert answer.status_code == 200, answer.text
        effect: dict[str, Any] = answer.json()
        return effect

    async def confirm(self, org: str, name: str, state: str, **fields: Any) -> Response:
        body = {"fields": fields, "reason": "a test", "state": state}
        answer = await self.client.post(f"/v1/organizations/{org}/actions/{name}", json=body)
        await self.settled()
        return answer

    async def do(self, org: str, name: str, **fields: Any) -> dict[str, Any]:
        effect = await self.preview(org, name, **fields)
        answer = await self.confirm(org, name, effect["state"], **fields)
        assert answer.status_code == 201, answer.text
        done: dict[str, Any] = answer.json()
        assert done["state"] == "done"
        assert done["undoable"] == effect["undo"]["possible"]
        return done

    async def undo(self, action: dict[str, Any]) -> Response:
        answer = await self.client.post(f"/v1/actions/{action['id']}/undo", json={"reason": "a mistake"})
        await self.settled()
        return answer
