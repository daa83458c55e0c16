"""Calls of Stripe's API: answers as plain data, and failures by name. Only StripeAway is worth another try."""

import logging
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import quote

import stripe

from control.billing.failures import StripeAway, StripeForbidden, StripeMissing, StripeRefused
from control.billing.objects import Object
from control.settings.control_plane import Stripe as Settings

PAGE = 100

# What another moment may answer otherwise: https://docs.stripe.com/error-codes, https://docs.stripe.com/error-low-level
_NOT_NOW = frozenset({"lock_timeout", "rate_limit", "idempotency_key_in_use"})
_NOT_NOW_STATUSES = frozenset({408, 409, 424, 425, 429})
# An invalid request all the same, but what is wrong is the account or the key, which somebody may mend.
_MENDABLE = frozenset(
    {
        "account_closed",
        "account_invalid",
        "api_key_expired",
        "livemode_mismatch",
        "platform_api_key_expired",
        "secret_key_required",
        "testmode_charges_only",
        "tls_version_unsupported",
    }
)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[stripe.StripeClient]:
    stripe.enable_telemetry = False
    logging.getLogger("stripe").setLevel(logging.WARNING)  # it would tell of each call
    http = stripe.HTTPXClient(timeout=settings.timeout_seconds)
    addresses: Any = {"api": settings.api_url, "meter_events": settings.api_url} if settings.api_url else {}
    client = stripe.StripeClient(
        settings.secret_key.get_secret_value(), http_client=http, max_network_retries=1, base_addresses=addresses
    )
    try:
        yield client
    finally:
        await http.close_async()  # type: ignore[no-untyped-call]  # stripe's own lapse


async def ask(call: Awaitable[Any]) -> Object:
    """The answer to one call. Raises StripeAway, StripeMissing, StripeForbidden, StripeRefused."""
    with _translated():
        answer = await call
    content: Object = answer.to_dict(for_json=True)
    return content


async def one(client: stripe.StripeClient, resource: str, object_id: str) -> Object:
    """One object: `one(client, "customers", "cus_1")`. Raises as `ask`."""
    return await _read(client, f"/v1/{resource}/{quote(object_id, safe='')}", {})


async def pages(client: stripe.StripeClient, path: str, params: Object) -> list[Object]:
    """All objects of a list, however many pages it has. Raises as `ask`."""
    return [each async for each in listed(client, path, params)]


async def listed(client: stripe.StripeClient, path: str, params: Object) -> AsyncIterator[Object]:
    """The same one by one, for who may stop early: a page is asked for when it is needed."""
    params = {"limit": PAGE, **params}
    while True:
        page = await _read(client, path, params)
        for each in page["data"]:
            yield each
        if not page["has_more"] or not page["data"]:
            return
        params = {**params, "starting_after": page["data"][-1]["id"]}


async def whole(client: stripe.StripeClient, listed: Object, path: str, params: Object | None = None) -> list[Object]:
    """All of a list that is part of another object, which holds its first page only. Raises as `ask`.

    `path` and `params`: where the whole list is."""
    first: list[Object] = listed["data"]
    return await pages(client, path, params or {}) if listed.get("has_more") else first


async def _read(client: stripe.StripeClient, path: str, params: Object) -> Object:
    """What a GET is answered with, as it is: the SDK's objects around it took a third of a look at a customer."""
    with _translated():
        answer = await client.raw_request_async("get", path, **params)
    content: Object = answer.data
    return content


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except stripe.StripeError as e:
        raise failure_of(e) from e


def failure_of(e: stripe.StripeError) -> StripeAway | StripeRefused:
    """What one of the SDK's errors is here."""
    message = _message_of(e)
    if isinstance(e, stripe.APIConnectionError | stripe.RateLimitError) or e.code in _NOT_NOW:
        return StripeAway(message)
    if e.http_status is None or e.http_status >= 500 or e.http_status in _NOT_NOW_STATUSES:
        return StripeAway(message)
    if e.code == "resource_missing":
        return StripeMissing(message, e.code, final=True)
    if e.http_status in (401, 403):
        return StripeForbidden(message, e.code)
    final = isinstance(e, stripe.InvalidRequestError) and e.code not in _MENDABLE
    return StripeRefused(message, e.code, final=final)


def _message_of(e: stripe.StripeError) -> str:
    # Never the request's own headers: they hold the key.
    return (e.user_message or type(e).__name__).replace("\x00", "")[:500]
