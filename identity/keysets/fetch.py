"""Fetches a key set from a URL. Source: RFC 9111 section 5.2.2 (Cache-Control).

Only settings with such a URL import it: httpx takes a while to load, and a worker that starts should not wait for it.
"""

import asyncio
import re
from typing import Final

import httpx

from identity.keysets.jwk import KeySetUnavailable
from identity.keysets.source import KeyDocument, bounded, decoded

FETCH_TIMEOUT_SECONDS: Final = 5

_MAX_AGE: Final = re.compile(r'max-age="?([0-9]{1,10})"?')


def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=FETCH_TIMEOUT_SECONDS)


async def fetch(client: httpx.AsyncClient, url: str, *, timeout_seconds: float = FETCH_TIMEOUT_SECONDS) -> KeyDocument:
    """The document at the URL. Raises KeySetUnavailable, also for a redirect: another address may be another issuer."""
    try:
        async with (
            asyncio.timeout(timeout_seconds),
            client.stream("GET", url, headers={"accept-encoding": "gzip, deflate"}, follow_redirects=False) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise KeySetUnavailable(f"its address answered {answer.status_code}")
            body = b""
            # Raw bytes, since a small compressed body may expand to a large one.
            async for part in answer.aiter_raw():
                body = bounded(body + part)
            return KeyDocument(decoded(body, answer.headers.get("content-encoding", "")), _max_age(answer.headers))
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:  # TimeoutError is an OSError
        raise KeySetUnavailable(f"it cannot be fetched: {type(error).__name__}") from error


def _max_age(headers: httpx.Headers) -> float | None:
    """The seconds for which the answer is still valid; 0: it must not be stored; None: it does not say."""
    directives = [part.strip().lower() for part in headers.get("cache-control", "").split(",")]
    if "no-store" in directives or "no-cache" in directives:
        return 0.0
    ages = [int(match[1]) for match in map(_MAX_AGE.fullmatch, directives) if match]
    if not ages:
        return None
    age = headers.get("age", "")
    return float(max(0, min(ages) - (int(age) if age.isdecimal() and len(age) <= 10 else 0)))
