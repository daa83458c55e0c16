"""Texts that would be markup, a script or a statement, if a page or a query took them for one."""

import asyncio
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from typing import Final
from uuid import uuid4

import asyncpg
import httpx

from tests.browser.running import Console

# OWASP XSS filter evasion cheat sheet, PortSwigger XSS cheat sheet, payloadbox/sql-injection-payload-list; what each
# would do is set window.hit.
STRINGS: Final = (
    "<script>window.hit=1</script>",
    '"><script>window.hit=1</script>',
    "'-window.hit=1-'",
    "<img src=x onerror=window.hit=1>",
    '"><img src=x onerror="window.hit=1">',
    "<svg/onload=window.hit=1>",
    "<svg><animate onbegin=window.hit=1 attributeName=x dur=1s>",
    "<body onload=window.hit=1>",
    "<iframe srcdoc='<script>parent.hit=1</script>'></iframe>",
    '<a href="javascript:window.hit=1">x</a>',
    "javascript:window.hit=1",
    '" autofocus onfocus=window.hit=1 x="',
    "' onmouseover='window.hit=1",
    "</title><script>window.hit=1</script>",
    "</textarea><script>window.hit=1</script>",
    '<!--<img src="--><img src=x onerror=window.hit=1//">',
    "<details open ontoggle=window.hit=1>",
    "<math><mtext><table><mglyph><style><img src=x onerror=window.hit=1></style></mglyph></table></mtext></math>",
    "{{constructor.constructor('window.hit=1')()}}",
    "${window.hit=1} #{7*7} {{7*7}} {% raw %}",
    "&lt;script&gt;window.hit=1&lt;/script&gt;",
    "<x hx-get=/v1/organizations hx-trigger=load hx-on:click=window.hit=1>",
    "\N{RIGHT-TO-LEFT OVERRIDE}window.hit\N{ZERO WIDTH SPACE}",
    "'; DROP TABLE organization; --",
    "' OR '1'='1",
    "1) UNION SELECT NULL, version(), NULL --",
    "%' AND 1=(SELECT 1 FROM pg_sleep(5)) --",
    "\\'; UPDATE entitlement SET plan='x'; --",
    "%_\\%",
)

PARAMETERS: Final = (*(text for text in STRINGS if "window" not in text), STRINGS[0], " ".join(STRINGS))
"""Each statement, and all texts in one: what a parameter of an address is tried with."""


def ids() -> list[str]:
    return [f"hostile-{number}" for number in range(len(STRINGS))]


def store_everywhere(console: Console, dsn: str) -> None:
    """Each text in the name of an organization, and in turn in all other fields that take a text."""
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(_store, [console.admin] * len(STRINGS), range(len(STRINGS))))
        # In a thread, since Playwright has an event loop in this one.
        incidents = threads.submit(asyncio.run, _incidents(dsn)).result()
    for incident, text in zip(incidents, STRINGS, strict=True):
        _done(console.admin.post(f"/v1/incidents/{incident}/notes", json={"text": text}))


def _store(admin: httpx.Client, number: int) -> None:
    org, texts = ids()[number], cycle(STRINGS[number:] + STRINGS[:number])
    _done(admin.put(f"/v1/organizations/{org}", json={"name": STRINGS[number]}))
    for path, field, more in _fields():
        _done(admin.post(f"/v1/organizations/{org}/{path}", json={field: next(texts), **more}))
    user, address = f"user-of-{org}", re.sub(r"[@\s]", "", next(texts))
    given = {"name": next(texts), "email": f"{address}@example.com"}
    _done(admin.put(f"/v1/users/{user}", json=given))
    _done(admin.put(f"/v1/organizations/{org}/members/{user}", json={"role": "owner"}))


def _fields() -> Iterator[tuple[str, str, dict[str, object]]]:
    """Path below an organization, the field that takes a text, and what else is required."""
    yield "grants", "reason", {"meter": "calls", "units": 1}
    yield "keys", "name", {}
    yield "activation-codes", "note", {}
    yield "revocations", "reason", {"subject": "a user"}


async def _incidents(dsn: str) -> list[str]:
    connection = await asyncpg.connect(dsn)
    made = []
    try:
        for org, text in zip(ids(), STRINGS, strict=True):
            made.append(str(uuid4()))
            await connection.execute(
                "INSERT INTO incident (id, kind, key, org, content, count, opened_at, last_seen_at) "
                "VALUES ($1, 'payment_failed', $2, $3, $4, 1, now(), now())",
                made[-1],
                text,
                org,
                json.dumps({text: text, "reason": text}),
            )
    finally:
        await connection.close()
    return made


def _done(answer: httpx.Response) -> None:
    assert answer.status_code in (200, 201, 204, 422), answer.text  # 422: this field takes no such text
