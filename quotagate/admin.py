"""The control plane's admin API, as the commands use it."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import typer

from quotagate.failure import CommandFailed, Unreachable

if TYPE_CHECKING:
    import httpx

TIMEOUT_SECONDS = 20.0
NOT_FOUND = 404
PAGE = 500


class Refused(CommandFailed):
    """The control plane refuses a request; `status` is that of its answer."""

    code = "refused"

    def __init__(self, status: int, explanation: str, kind: str | None) -> None:
        super().__init__(f"the control plane answered {status}: {explanation}")
        self.status = status
        self.members = {"status": status, "type": kind}


class AdminApi:
    def __init__(self, client: "httpx.Client") -> None:
        self._client = client

    def get(self, path: str, query: dict[str, Any] | None = None) -> Any:
        return self._call("GET", path, params=query).json()

    def find(self, path: str) -> Any | None:
        """As `get`, but None for what does not exist."""
        response = self._call("GET", path, or_missing=True)
        return None if response.status_code == NOT_FOUND else response.json()

    def pages(self, path: str, member: str, cursor: str = "before", limit: int = PAGE) -> Iterator[dict[str, Any]]:
        """The items of all pages of a list. `cursor`: the parameter that takes a page's `next`."""
        after: str | None = None
        while True:
            page = self.get(path, {"limit": limit} | ({cursor: after} if after else {}))
            yield from page[member]
            after = page["next"]
            if after is None:
                return

    def put(self, path: str, content: dict[str, Any]) -> Any:
        return self._call("PUT", path, json=content).json()

    def post(self, path: str, content: dict[str, Any]) -> Any:
        return self._call("POST", path, json=content).json()

    def delete(self, path: str) -> None:
        self._call("DELETE", path)

    def ask(
        self,
        method: str,
        path: str,
        content: Any = None,
        *,
        query: dict[str, Any] | None = None,
        version: int | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> Any:
        """What it answers, None for an answer without content. `version`: that it changes, or is refused with 412."""
        headers = {} if version is None else {"if-match": f'"{version}"'}
        response = self._call(method, path, json=content, params=query, headers=headers, timeout=timeout_seconds)
        return response.json() if response.content else None

    def _call(self, method: str, path: str, *, or_missing: bool = False, **request: Any) -> "httpx.Response":
        """Raises `Refused` with the text of the problem document, `Unreachable` where there is no answer."""
        import httpx

        try:
            response = self._client.request(method, path, **request)
        except httpx.TransportError as e:
            raise Unreachable(f"the control plane at {self._client.base_url} does not answer: {e}") from e
        missing = response.status_code == NOT_FOUND
        if response.is_error and not (missing and or_missing):
            raise Refused(response.status_code, *_explained(response))
        return response


@contextmanager
def connected(control_url: str | None, admin_token_env: str, data_dir: Path) -> Iterator[AdminApi]:
    """The admin API at that URL; without one, that of the stack that runs on the data directory. Raises BadParameter,
    Unreachable."""
    import httpx

    if control_url is None:
        ready = running_stack(data_dir, ", or name a control plane with --control-url")
        control_url, admin_token = ready["control"], ready["admin_token"]
    elif not (admin_token := os.environ.get(admin_token_env, "")):
        missing = f"the environment variable {admin_token_env} must hold the admin token of {control_url}"
        raise typer.BadParameter(missing, param_hint="--admin-token-env")
    headers = {"authorization": f"Bearer {admin_token}"}
    with httpx.Client(base_url=control_url, headers=headers, timeout=TIMEOUT_SECONDS) as client:
        yield AdminApi(client)


def running_stack(data_dir: Path, otherwise: str = "") -> dict[str, Any]:
    """What its ready.json says. `otherwise`: what an operator may do instead of starting one. Raises Unreachable."""
    try:
        ready: dict[str, Any] = json.loads((data_dir / "ready.json").read_text())
    except FileNotFoundError:
        raise Unreachable(f"no stack runs on {data_dir}: start `quotagate up`{otherwise}") from None
    return ready


def path_of(org: str) -> str:
    return f"/v1/organizations/{quote(org, safe='')}"


def entitlement_path(org: str) -> str:
    return f"/v1/entitlements/{quote(org, safe='')}"


def _explained(response: "httpx.Response") -> tuple[str, str | None]:
    """The text of a problem document, and its type; of another answer, how it begins."""
    try:
        problem: Mapping[str, Any] = response.json()
        return str(problem.get("detail") or problem["title"]), problem.get("type")
    except (ValueError, KeyError, AttributeError):
        return response.text[:200] or response.reason_phrase, None
