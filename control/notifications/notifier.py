"""The notifier: delivers the notifications in the outbox to the vendor's endpoint, each at least once.

An attempt claims its notification for a while (`CLAIM_SECONDS`), and holds no connection to Postgres meanwhile. If its
process dies, another one takes the notification over when that time is over. The webhook-id stays the same, so that a
receiver recognizes what it has.
"""

import asyncio
import random
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import structlog

from common.backoff import Backoff
from common.clock import Clock, system_clock
from control import incidents, sql
from control.db import Connection, Database
from control.moments import moment
from control.settings.control_plane import Notifications
from control.sql.notifications import Claimed
from control.webhook_signature import key_of, signatures

log = structlog.get_logger()

AT_ONCE = 8
CLAIM_SECONDS = 60.0
ANSWER_BYTES_MAX = 16 * 1024  # more of an answer is not read, and its connection not used again

# 5 s, 20 s, 80 s, 5 min, 21 min, 85 min, 5.7 h, then every six hours: 26 hours in all
BACKOFF = Backoff(first_seconds=5, max_seconds=6 * 3600, factor=4, jitter=0.2)

DISABLED = "webhook_endpoint_disabled"
"""While an incident of this kind is open for the endpoint, nothing is sent."""
GIVEN_UP = "webhook_given_up"


@dataclass(frozen=True, slots=True)
class Attempts:
    """How often a notification is tried, and for how long; tests have less patience."""

    poll_seconds: float = 0.5
    timeout_seconds: float = 15.0
    """Of the whole of one, however slowly the answer trickles in."""
    most: int = 11
    """Then it is given up."""


class DeliveryFailed(Exception):
    """The endpoint did not accept it. The message is for the admin."""


class EndpointGone(DeliveryFailed):
    """The endpoint wants no more notifications: it answered 410."""


class Notifier:
    name = "notifier"

    def __init__(
        self,
        db: Database,
        settings: Notifications,
        clock: Clock = system_clock,
        host_clock: Clock | None = None,
        attempts: Attempts = Attempts(),
    ) -> None:
        self._attempts = attempts
        self._db = db
        self._url = settings.url.get_secret_value()
        self._keys = [key_of(secret.get_secret_value()) for secret in settings.secrets]
        self._clock = clock
        self._host_clock = host_clock or clock
        self.endpoint = _without_secrets(self._url)

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable; whoever runs it starts it again."""
        await self._close_others()
        under_way: set[asyncio.Task[None]] = set()
        async with httpx.AsyncClient(
            timeout=self._attempts.timeout_seconds,
            follow_redirects=False,  # where it points to has not been told the secret, nor vetted by anyone
            limits=httpx.Limits(max_connections=AT_ONCE),
            headers={"user-agent": "quotagate", "accept-encoding": "identity"},
        ) as client:
            try:
                while True:
                    # One that is slow keeps its own place and no other.
                    for claimed in await self._claim(AT_ONCE - len(under_way)):
                        under_way.add(asyncio.create_task(self._attempt(client, claimed)))
                    if not under_way:
                        await asyncio.sleep(self._attempts.poll_seconds)
                        continue
                    done, under_way = await asyncio.wait(
                        under_way, timeout=self._attempts.poll_seconds, return_when=asyncio.FIRST_COMPLETED
                    )
                    for task in done:
                        task.result()
            finally:
                for task in under_way:
                    task.cancel()
                await asyncio.gather(*under_way, return_exceptions=True)

    async def _claim(self, limit: int) -> list[Claimed]:
        if limit <= 0:
            return []
        now = self._clock()
        async with self._db.connection() as connection:
            return await sql.notifications.claim(
                connection,
                at=moment(now),
                lost_at=moment(now + CLAIM_SECONDS),
                disabled_kind=DISABLED,
                endpoint=self.endpoint,
                limit_rows=limit,
            )

    async def _attempt(self, client: httpx.AsyncClient, claimed: Claimed) -> None:
        try:
            await self._send(client, str(claimed.id), claimed.body.encode())
        except DeliveryFailed as e:
            log.warning("a webhook was not delivered", id=str(claimed.id), attempt=claimed.attempts, reason=str(e))
            async with self._db.transaction() as connection:
                await self._failed(connection, claimed, e)
            return
        async with self._db.connection() as connection:
            await sql.notifications.delivered(connection, id=claimed.id, at=moment(self._clock()))

    async def _send(self, client: httpx.AsyncClient, webhook_id: str, body: bytes) -> None:
        """Raises DeliveryFailed."""
        timestamp = int(self._host_clock())  # of the attempt: receivers refuse what was signed long ago
        headers = {
            "content-type": "application/json",
            "webhook-id": webhook_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signatures(self._keys, webhook_id, timestamp, body),
        }
        status = 0
        try:
            async with (
                asyncio.timeout(self._attempts.timeout_seconds),
                client.stream("POST", self._url, content=body, headers=headers) as answer,
            ):
                status, read = answer.status_code, 0
                async for part in answer.aiter_raw():  # to its end, so that the connection can be used again
                    read += len(part)
                    if read > ANSWER_BYTES_MAX:
                        break
        except (httpx.TimeoutException, TimeoutError) as e:
            if not status:
                raise DeliveryFailed(f"no answer within {self._attempts.timeout_seconds:g} seconds") from e
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as e:
            if not status:
                raise DeliveryFailed(f"{type(e).__name__}: {e}".replace("\x00", "")[:300]) from e
        # Who has told the status has decided, whatever becomes of the rest of the answer.
        if status == httpx.codes.GONE:
            raise EndpointGone("answered 410")
        if not 200 <= status < 300:
            raise DeliveryFailed(f"answered {status}")

    async def _failed(self, connection: Connection, claimed: Claimed, failure: DeliveryFailed) -> None:
        now, error = self._clock(), str(failure)
        notification_id, attempts = claimed.id, claimed.attempts
        await sql.notifications.keep_attempt(
            connection, id=notification_id, attempt=attempts, at=moment(now), error=error
        )
        content: dict[str, Any] = {"notification": str(notification_id), "type": claimed.type, "reason": error}
        if isinstance(failure, EndpointGone):
            # It waits until an admin has closed the incident, or the settings name another endpoint.
            await sql.notifications.put_back(
                connection, id=notification_id, attempts=attempts, at=moment(now), error=error
            )
            await incidents.open(connection, now, DISABLED, self.endpoint, None, content)
        elif attempts < self._attempts.most:
            at = moment(now + BACKOFF.seconds(attempts, random.uniform(-1, 1)))  # noqa: S311  no secret
            await sql.notifications.retry(
                connection, id=notification_id, attempts=attempts, next_attempt_at=at, error=error
            )
        elif await sql.notifications.give_up(
            connection, id=notification_id, attempts=attempts, at=moment(now), error=error
        ):
            content["attempts"] = attempts
            await incidents.open(connection, now, GIVEN_UP, self.endpoint, claimed.org, content)

    async def _close_others(self) -> None:
        """An endpoint that is not in the settings any more is disabled for nobody."""
        async with self._db.connection() as connection:
            at = moment(self._clock())
            await sql.incidents.close_other_keys(connection, kind=DISABLED, key=self.endpoint, at=at)


def _without_secrets(url: str) -> str:
    """The endpoint as incidents name it: neither user, nor query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
