"""Stripe's API as this plane asks it: answers as plain data, failures as three names, of which only one is worth
another try."""

import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import stripe

from control.billing.failures import StripeAway, StripeForbidden, StripeMissing, StripeRefused
from control.billing.objects import Object
from control.settings import Stripe as Settings

PAGE = 100


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
    try:
        answer = await call
    except (stripe.APIConnectionError, stripe.RateLimitError) as e:
        raise StripeAway(_told(e)) from e
    except stripe.StripeError as e:
        if e.http_status is None or e.http_status >= 500 or e.http_status == 409:
            raise StripeAway(_told(e)) from e
        if e.code == "resource_missing":
            raise StripeMissing(_told(e), e.code) from e
        if e.http_status in (401, 403):
            raise StripeForbidden(_told(e), e.code) from e
        raise StripeRefused(_told(e), e.code) from e
    found: Object = answer.to_dict(for_json=True)
    return found


async def pages(list_: Any, params: Object) -> list[Object]:
    """All objects of a list, however many pages it has; `list_` is a service's `list_async`."""
    found: list[Object] = []
    params = {"limit": PAGE, **params}
    while True:
        page = await ask(list_(params))
        found += page["data"]
        if not page["has_more"]:
            return found
        params = {**params, "starting_after": page["data"][-1]["id"]}


def _told(e: stripe.StripeError) -> str:
    # Never the request's own headers: they hold the key.
    return (e.user_message or type(e).__name__).replace("\x00", "")[:500]
