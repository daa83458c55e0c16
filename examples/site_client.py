"""A site's side of the activation protocol (docs/activation.md), in one file, with Python's standard library only.

    site = ActivatedSite("https://control.example.com", Path("/var/lib/my-plugin"), "https://shop.example.com")
    site.activate("9F3KD-…")                                    # once, with the code that the customer enters
    headers = {"Authorization": f"Bearer {site.access_token()}"}  # before each call of the API

Several threads and processes may share the directory: one refreshes, the others wait for it. Its files can be read by
their owner only. `site.key` is what proves who the site is: keep the directory where a copy of the site's database does
not go. `tokens.json` has the tokens.
"""

import argparse
import hmac
import json
import os
import secrets
import sys
import threading
import time
import urllib.error
import urllib.request
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: threads are kept apart, processes are excused by the server's grace
    fcntl = None  # type: ignore[assignment]

AGAIN = "urn:quotagate:problem:activate-again"
TIMEOUT_SECONDS = 10
TRIES = 3


class ActivateAgain(Exception):
    """The tokens are good for nothing any more: ask the customer for a code. The reason is the message."""


class Refused(Exception):
    """The control plane does not do it; the message says why."""


class Unreachable(Exception):
    """The control plane does not answer, or asks to come back later. Nothing is lost: try again."""


class ActivatedSite:
    def __init__(self, control_url: str, directory: Path, domain: str, product: str = "") -> None:
        """`domain`: what the site has now. It is not stored, so that a copy of the directory says its own."""
        self._url = control_url.rstrip("/")
        self._directory = directory
        self._domain = domain
        self._product = product
        self._lock = threading.Lock()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def activate(self, code: str) -> dict[str, Any]:
        """Raises Refused, Unreachable."""
        with self._locked():
            attempt = self._attempt(f"activate {sha256(code.encode()).hexdigest()}")
            content = {
                "code": code,
                "domain": self._domain,
                "site_key": f"hmac-sha256:{_base64url(self._key())}",
                "proof": self._proof("activate", code),
                "product": self._product,
                "attempt": attempt,
            }
            return self._keep(self._call("/v1/activations", content))

    def access_token(self) -> str:
        """One that is good for a while. Raises ActivateAgain, and Unreachable where it has expired meanwhile."""
        tokens = self._read()
        if not _due(tokens):
            return str(tokens["access_token"])
        with self._locked():
            tokens = self._read()  # another process may have refreshed them while we waited
            if _due(tokens):
                try:
                    tokens = self._refresh(tokens)
                except Unreachable:
                    if time.time() >= tokens["expires_at"]:
                        raise
            return str(tokens["access_token"])

    def refresh(self) -> dict[str, Any]:
        """At once. Raises ActivateAgain, Unreachable."""
        with self._locked():
            return self._refresh(self._read())

    def release(self) -> None:
        """Gives the site's seat back, as when the plugin is removed. Raises ActivateAgain, Unreachable."""
        with self._locked():
            token = self._read()["refresh_token"]
            proof = self._proof("release", token)
            self._call("/v1/activations/release", {"refresh_token": token, "domain": self._domain, "proof": proof})
            self._path("tokens.json").unlink(missing_ok=True)

    def _refresh(self, tokens: dict[str, Any]) -> dict[str, Any]:
        token = tokens["refresh_token"]
        # Written down before it is sent: if the answer is lost, the same attempt gets the same tokens, however late.
        attempt = self._attempt(f"refresh {sha256(token.encode()).hexdigest()}")
        content = {"refresh_token": token, "domain": self._domain, "proof": self._proof("refresh", token)}
        return self._keep(self._call("/v1/activations/refresh", content | {"attempt": attempt}))

    def _call(self, path: str, content: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310  # the URL is the vendor's own
            self._url + path, json.dumps(content).encode(), {"Content-Type": "application/json"}
        )
        for tried in range(1, TRIES + 1):
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310  # as above
                    body: dict[str, Any] = json.loads(answer.read() or b"{}")
                    return body
            except urllib.error.HTTPError as e:
                with e:
                    problem = _problem(e.read())
                if problem.get("type") == AGAIN:
                    raise ActivateAgain(problem.get("detail", "")) from None
                if e.code < 500 and e.code != 429:
                    raise Refused(problem.get("detail", f"status {e.code}")) from None
                failure = f"status {e.code}: {problem.get('detail', '')}"
            except (OSError, ValueError) as e:
                failure = str(e)
            if tried < TRIES:
                time.sleep(0.5 * 2**tried * (1 + secrets.randbelow(100) / 100))
        raise Unreachable(failure)

    def _keep(self, answer: dict[str, Any]) -> dict[str, Any]:
        # By this machine's clock, and as a length of time: the clock may be wrong, and still be good for that.
        now = time.time()
        times = {"received_at": now, "expires_at": now + answer["expires_in"]}
        tokens = {**answer, **times}
        self._write("tokens.json", json.dumps(tokens).encode())
        self._path("attempt.json").unlink(missing_ok=True)
        return tokens

    def _read(self) -> dict[str, Any]:
        try:
            tokens: dict[str, Any] = json.loads(self._path("tokens.json").read_text())
        except FileNotFoundError:
            raise ActivateAgain("The site is not activated.") from None
        return tokens

    def _attempt(self, what: str) -> str:
        """The name of this request: the same as before where the answer to it did not come."""
        path = self._path("attempt.json")
        try:
            before = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            before = {}
        if before.get("what") == what:
            return str(before["attempt"])
        attempt = secrets.token_urlsafe(24)
        self._write("attempt.json", json.dumps({"what": what, "attempt": attempt}).encode())
        return attempt

    def _key(self) -> bytes:
        path = self._path("site.key")
        if not path.exists():
            self._write("site.key", _base64url(secrets.token_bytes(32)).encode())
        return sha256(urlsafe_b64decode(path.read_text().strip() + "=")).digest()

    def _proof(self, purpose: str, secret: str) -> str:
        text = f"quotagate {purpose}\n{secret}\n{self._domain}".encode()
        return _base64url(hmac.digest(self._key(), text, "sha256"))

    def _path(self, name: str) -> Path:
        return self._directory / name

    def _write(self, name: str, data: bytes) -> None:
        """All of it or nothing, and for the owner only, from its first byte on."""
        path, new = self._path(name), self._path(f".{name}.{os.getpid()}")
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One thread of one process at a time."""
        with self._lock, self._path("lock").open("a") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            yield  # closing the file gives the lock back


def _due(tokens: dict[str, Any]) -> bool:
    """Whether a third of the token's life is left, or the clock was set back."""
    now, lifetime = time.time(), tokens["expires_at"] - tokens["received_at"]
    return not tokens["received_at"] <= now < tokens["expires_at"] - lifetime / 3


def _problem(body: bytes) -> dict[str, Any]:
    try:
        problem = json.loads(body)
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def main() -> int:
    parser = argparse.ArgumentParser(description="A site that is activated by a code.")
    parser.add_argument("--control", required=True, metavar="URL", help="the control plane")
    parser.add_argument("--dir", required=True, type=Path, help="where the site keeps its key and its tokens")
    parser.add_argument("--domain", required=True, help="the site's domain")
    parser.add_argument("--product", default="")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("activate", help="activate the site by the code that standard input has")
    commands.add_parser("token", help="print an access token; it is refreshed where its life is nearly over")
    commands.add_parser("refresh", help="refresh the tokens now")
    commands.add_parser("release", help="give the site's seat back")
    given = parser.parse_args()
    site = ActivatedSite(given.control, given.dir, given.domain, given.product)
    try:
        if given.command == "token":
            print(site.access_token())  # noqa: T201  # that is the command
        elif given.command == "release":
            site.release()
        else:
            # Not as an argument: those are in the list of processes, which everybody can read.
            tokens = site.activate(sys.stdin.readline().strip()) if given.command == "activate" else site.refresh()
            shown = {name: tokens[name] for name in ("organization", "plan", "site", "domain", "kind", "expires_in")}
            print(json.dumps(shown))  # noqa: T201
    except (ActivateAgain, Refused, Unreachable) as e:
        sys.stderr.write(f"{type(e).__name__}: {e}\n")
        return 3 if isinstance(e, ActivateAgain) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
