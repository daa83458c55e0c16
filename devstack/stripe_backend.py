"""Stripe for the embedded stack: the double as a child process, or the vendor's own test account."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from devstack import sample_process
from devstack.child import Child, Pause, StackError, spawn
from devstack.ports import LOOPBACK

START_TIMEOUT_SECONDS = 60.0
TIMEOUT_SECONDS = 20.0
OWN_KEY, OWN_WEBHOOK_SECRET = "STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET"
SIGN_UP_ORG, SIGN_UP_PLAN = "newco", "starter"


@dataclass(frozen=True)
class StripeBackend:
    """The Stripe account that the control plane sells with."""

    secret_key: str
    webhook_secret: str
    api_url: str
    """Empty: Stripe itself."""


def own_account(environment: Mapping[str, str]) -> StripeBackend | None:
    """The vendor's own account, of which only the test mode may be used. Raises `StackError` for a live key."""
    key = environment.get(OWN_KEY, "")
    if not key:
        return None
    if "_test_" not in key:
        raise StackError(f"{OWN_KEY} is not a test key: `quotagate up` is for trying out, and would sell for real")
    return StripeBackend(key, environment.get(OWN_WEBHOOK_SECRET, ""), "")


def start(
    port: int, file: Path, control_url: str, webhook_secret: str, *, log: Path, inherited_fds: Sequence[int] = ()
) -> Child:
    argv = [sys.executable, "-m", "devstack.stripe", "--port", str(port), "--file", str(file)]
    argv += ["--webhook-url", f"{control_url}/api/webhooks/stripe"]
    # The secret travels in the environment: a command line is readable to everyone on the machine.
    env = {"QUOTAGATE_STRIPE_WEBHOOK_SECRET": webhook_secret}
    return spawn("stripe", argv, log=log, env=env, grace_seconds=5, inherited_fds=inherited_fds)


def wait_ready(child: Child, port: int, pause: Pause = time.sleep) -> None:
    child.wait_until(lambda: sample_process.answers(port, "/_double/clock"), START_TIMEOUT_SECONDS, pause)


def url(port: int) -> str:
    return f"http://{LOOPBACK}:{port}"


def sign_up(control_url: str, admin_token: str) -> dict[str, Any] | None:
    """A page where an organization of the demo pays, or manages what it pays for; None where nothing is sold.

    Raises `StackError`."""
    try:
        return _sign_up(control_url, admin_token)
    except httpx.TransportError as e:
        raise StackError(f"the control plane did not answer when a sign-up was begun: {e}") from e


def _sign_up(control_url: str, admin_token: str) -> dict[str, Any] | None:
    headers = {"authorization": f"Bearer {admin_token}"}
    back = f"{control_url}/docs"
    with httpx.Client(base_url=control_url, headers=headers, timeout=TIMEOUT_SECONDS) as client:
        body = {"org": SIGN_UP_ORG, "plan": SIGN_UP_PLAN, "success_url": back}
        checkout = client.post("/v1/checkout-sessions", json=body)
        if checkout.status_code == httpx.codes.CREATED:
            return {"org": SIGN_UP_ORG, "plan": SIGN_UP_PLAN, "checkout": checkout.json()["url"]}
        portal = client.post(f"/v1/organizations/{SIGN_UP_ORG}/portal-sessions", json={"return_url": back})
        if portal.status_code == httpx.codes.CREATED:
            return {"org": SIGN_UP_ORG, "plan": SIGN_UP_PLAN, "portal": portal.json()["url"]}
    return None
