"""The way into the console of the embedded stack."""

from typing import Any

import httpx

from devstack.child import StackError

TIMEOUT_SECONDS = 20.0


def link(control_url: str, admin_token: str) -> str:
    """Signs an admin in once, within 15 minutes. Raises `StackError`."""
    headers = {"authorization": f"Bearer {admin_token}"}
    try:
        made = httpx.post(f"{control_url}/v1/console-links", json={}, headers=headers, timeout=TIMEOUT_SECONDS)
    except httpx.TransportError as e:
        raise StackError(f"the control plane did not answer when a link to the console was made: {e}") from e
    if made.status_code != httpx.codes.CREATED:
        raise StackError(f"the control plane made no link to the console: {made.status_code}", made.text.splitlines())
    content: dict[str, Any] = made.json()
    return str(content["url"])
