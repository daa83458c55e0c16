"""Webhook endpoints, and the delivery of events to them: signed, retried, and as disorderly as a test wants."""

import asyncio
import hashlib
import hmac
import json
import random
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import httpx

from common.backoff import Backoff
from devstack.stripe.account import API_VERSION, Account, Object
from devstack.stripe.dispatch import listing, route

ATTEMPT_SECONDS = 10.0
AT_ONCE = 8  # httpx searches all requests that wait for a connection, each time: with hundreds, each takes a second
EVENTS_LISTED_SECONDS = 30 * 86_400
BACKOFF, ATTEMPTS_MAX = Backoff(first_seconds=0.2, max_seconds=30), 40


@dataclass
class Faults:
    """What goes wrong with the deliveries that follow."""

    duplicate: int = 0
    """Each event is sent so many more times."""
    shuffle: bool = False
    """Events of the same quarter of a second are sent in any order."""
    drop: float = 0.0
    """This share of events is not sent at all, and is only in the list of events."""
    delay_seconds: float = 0.0


@dataclass
class Deliveries:
    account: Account
    faults: Faults = field(default_factory=Faults)
    delivered: list[Object] = field(default_factory=list)
    signing_clock: Callable[[], int] = lambda: int(time.time())
    """Receivers compare the time with their own clock, which nobody has moved."""

    def __post_init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._free = asyncio.Semaphore(AT_ONCE)
        self._client = httpx.AsyncClient(timeout=ATTEMPT_SECONDS)
        self.account.listeners.append(self._emitted)

    def _emitted(self, event: Object) -> None:
        for endpoint in self.account.find("webhook_endpoint", status="enabled"):
            enabled = endpoint["enabled_events"]
            if ("*" in enabled or event["type"] in enabled) and random.random() >= self.faults.drop:  # noqa: S311 - no secret
                event["pending_webhooks"] += 1
                for _ in range(1 + self.faults.duplicate):
                    delivery_id = self.account.new_id("dlv")
                    self._undelivered[delivery_id] = {"endpoint": endpoint["id"], "event": event["id"]}
                    self._begin(delivery_id, endpoint["id"], event)

    @property
    def _undelivered(self) -> Object:
        """It is saved with the account, so that a later run sends it."""
        return self.account.note("undelivered")

    def _begin(self, delivery_id: str, endpoint_id: str, event: Object) -> None:
        task = asyncio.create_task(self._deliver(delivery_id, endpoint_id, event))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def resume(self) -> None:
        """Sends what an earlier run did not."""
        for delivery_id, each in list(self._undelivered.items()):
            self._begin(delivery_id, each["endpoint"], self.account.get("event", each["event"]))

    async def flush(self) -> None:
        """Returns when nothing is under way."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    async def _deliver(self, delivery_id: str, endpoint_id: str, event: Object) -> None:
        await self._send(endpoint_id, event)
        del self._undelivered[delivery_id]  # not reached when this run ends before

    async def _send(self, endpoint_id: str, event: Object) -> None:
        pause = self.faults.delay_seconds + (random.random() / 4 if self.faults.shuffle else 0)  # noqa: S311 - no secret
        for attempt in range(1, ATTEMPTS_MAX + 1):
            if pause:
                await asyncio.sleep(pause)
            endpoint = self.account.objects.get("webhook_endpoint", {}).get(endpoint_id)
            if endpoint is None:
                return
            async with self._free:
                status = await self._attempt(endpoint, event)
            self.delivered.append({"event": event["id"], "type": event["type"], "attempt": attempt, "status": status})
            if 200 <= status < 300:
                event["pending_webhooks"] = max(0, event["pending_webhooks"] - 1)
                return
            pause = BACKOFF.seconds(attempt)

    async def _attempt(self, endpoint: Object, event: Object) -> int:
        body = json.dumps(event)
        secret = self.account.note(endpoint["id"])["secret"]
        header = signature(body, secret, self.signing_clock())
        with suppress(httpx.HTTPError):
            response = await self._client.post(
                endpoint["url"],
                content=body,
                headers={"stripe-signature": header, "content-type": "application/json; charset=utf-8"},
            )
            return response.status_code
        return 0


def signature(body: str, secret: str, at: int) -> str:
    """The Stripe-Signature field: https://docs.stripe.com/webhooks#verify-manually"""
    mac = hmac.new(secret.encode(), f"{at}.{body}".encode(), hashlib.sha256).hexdigest()
    return f"t={at},v1={mac}"


def add_endpoint(account: Account, url: str, enabled_events: list[str], secret: str) -> Object:
    endpoint = account.add(
        {
            "id": account.new_id("we"),
            "object": "webhook_endpoint",
            "api_version": API_VERSION,
            "application": None,
            "created": account.clock.now(),
            "description": None,
            "enabled_events": enabled_events,
            "livemode": False,
            "metadata": {},
            "status": "enabled",
            "url": url,
        }
    )
    account.note(endpoint["id"])["secret"] = secret
    return endpoint


@route("POST", "/v1/webhook_endpoints", "WebhookEndpointCreateParams")
def create(account: Account, params: Object) -> Object:
    secret = f"whsec_{secrets.token_urlsafe(24)}"
    endpoint = add_endpoint(account, params["url"], params["enabled_events"], secret)
    endpoint.update(description=params.get("description"), metadata=params.get("metadata") or {})
    return {**endpoint, "secret": secret}


@route("GET", "/v1/webhook_endpoints", "WebhookEndpointListParams")
def list_(account: Account, params: Object) -> Object:
    return listing(account.find("webhook_endpoint"), params, "/v1/webhook_endpoints")


@route("DELETE", "/v1/webhook_endpoints/{endpoint_id}")
def delete(account: Account, params: Object, endpoint_id: str) -> Object:
    account.get("webhook_endpoint", endpoint_id)
    del account.objects["webhook_endpoint"][endpoint_id]
    return {"id": endpoint_id, "object": "webhook_endpoint", "deleted": True}


@route("GET", "/v1/events", "EventListParams")
def list_events(account: Account, params: Object) -> Object:
    listed_from = account.clock.now() - EVENTS_LISTED_SECONDS
    types: Any = params.get("types") or ([params["type"]] if params.get("type") else None)
    events = (
        event
        for event in account.find("event")
        if event["created"] >= listed_from and (types is None or event["type"] in types)
    )
    return deepcopy(listing(events, params, "/v1/events"))


@route("GET", "/v1/events/{event_id}", "EventRetrieveParams")
def retrieve_event(account: Account, params: Object, event_id: str) -> Object:
    return account.get("event", event_id)
