"""The control plane's admin API, as the commands use it."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from quotagate.failure import CommandFailed

TIMEOUT_SECONDS = 20.0


class AdminApi:
    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def get(self, path: str) -> Any:
        return self._call("GET", path, None)

    def put(self, path: str, content: dict[str, Any]) -> Any:
        return self._call("PUT", path, content)

    def _call(self, method: str, path: str, content: dict[str, Any] | None) -> Any:
        """The answer's body. Raises `CommandFailed` with what the problem document says."""
        try:
            response = self._client.request(method, path, json=content)
        except httpx.TransportError as e:
            raise CommandFailed(f"the control plane at {self._client.base_url} does not answer: {e}") from e
        if response.is_error:
            raise CommandFailed(f"the control plane answered {response.status_code}: {_explanation(response)}")
        return response.json()


@contextmanager
def connected(control_url: str | None, admin_token_env: str, data_dir: Path) -> Iterator[AdminApi]:
    """The admin API at that URL, or without one that of the stack which runs on the data directory."""
    if control_url is None:
        ready = running_stack(data_dir)
        control_url, admin_token = ready["control"], ready["admin_token"]
    elif not (admin_token := os.environ.get(admin_token_env, "")):
        raise CommandFailed(f"environment variable {admin_token_env} must hold the admin token of {control_url}")
    headers = {"authorization": f"Bearer {admin_token}"}
    with httpx.Client(base_url=control_url, headers=headers, timeout=TIMEOUT_SECONDS) as client:
        yield AdminApi(client)


def running_stack(data_dir: Path) -> dict[str, Any]:
    try:
        ready: dict[str, Any] = json.loads((data_dir / "ready.json").read_text())
    except FileNotFoundError:
        raise CommandFailed(
            f"nothing runs on {data_dir}: start `quotagate up`, or name a control plane with --control-url"
        ) from None
    return ready


def _explanation(response: httpx.Response) -> str:
    try:
        problem = response.json()
        return str(problem.get("detail") or problem["title"])
    except (ValueError, KeyError, AttributeError):
        return response.text[:200] or response.reason_phrase
