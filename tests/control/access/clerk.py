"""A double of Clerk: its Backend API over a real socket, and the events that it would send."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from devstack.ports import free_port

SECRET_KEY = "sk_test_of-the-double"
SECRET = "whsec_" + base64.b64encode(b"the webhook secret of the double").decode()
OTHER_SECRET = "whsec_" + base64.b64encode(b"another secret of the same length").decode()


@dataclass(frozen=True, slots=True)
class Event:
    type: str
    data: dict[str, Any]
    id: str = field(default_factory=lambda: f"msg_{uuid4().hex}")

    @property
    def body(self) -> bytes:
        return json.dumps({"object": "event", "type": self.type, "data": self.data}).encode()


def signed(event: Event, at: float, *secrets: str) -> dict[str, str]:
    """The header fields of a delivery."""
    timestamp = str(int(at))
    content = f"{event.id}.{timestamp}.".encode() + event.body
    keys = [base64.b64decode(secret.removeprefix("whsec_")) for secret in secrets or (SECRET,)]
    signatures = [base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode() for key in keys]
    return {
        "svix-id": event.id,
        "svix-timestamp": timestamp,
        "svix-signature": " ".join(f"v1,{signature}" for signature in signatures),
        "content-type": "application/json",
    }


class Clerk:
    """What is there. Each change returns the events that it causes."""

    def __init__(self) -> None:
        self.port = free_port()
        self.users: dict[str, dict[str, Any]] = {}
        self.organizations: dict[str, str] = {}
        self.members: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []
        self.answers: list[int] = []
        """Statuses of the next answers, before it answers as it should."""
        self.page_rows_max = 500

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # Changes

    def set_user(self, id_: str, email: str | None, first: str | None = None) -> list[Event]:
        kind = "updated" if id_ in self.users else "created"
        addresses = [] if email is None else [{"id": "idn_1", "email_address": email}]
        primary = None if email is None else "idn_1"
        self.users[id_] = {
            "id": id_,
            "object": "user",
            "first_name": first,
            "last_name": None,
            "primary_email_address_id": primary,
            "email_addresses": addresses,
        }
        return [Event(f"user.{kind}", self.users[id_])]

    def delete_user(self, id_: str) -> list[Event]:
        if self.users.pop(id_, None) is None:
            return []
        events = [event for org in list(self.members) for event in self.remove_member(org, id_)]
        return [*events, Event("user.deleted", {"id": id_, "object": "user", "deleted": True})]

    def set_organization(self, id_: str, name: str) -> list[Event]:
        kind = "updated" if id_ in self.organizations else "created"
        self.organizations[id_] = name
        self.members.setdefault(id_, {})
        return [Event(f"organization.{kind}", self._organization(id_))]

    def delete_organization(self, id_: str) -> list[Event]:
        if self.organizations.pop(id_, None) is None:
            return []
        del self.members[id_]
        return [Event("organization.deleted", {"id": id_, "object": "organization", "deleted": True})]

    def set_member(self, org: str, user: str, role: str) -> list[Event]:
        if org not in self.organizations or user not in self.users:
            return []
        kind = "updated" if user in self.members[org] else "created"
        self.members[org][user] = role
        return [Event(f"organizationMembership.{kind}", self._membership(org, user, role))]

    def remove_member(self, org: str, user: str) -> list[Event]:
        role = self.members.get(org, {}).pop(user, None)
        if role is None:
            return []
        return [Event("organizationMembership.deleted", self._membership(org, user, role))]

    def _organization(self, id_: str) -> dict[str, Any]:
        return {"id": id_, "object": "organization", "name": self.organizations[id_]}

    def _membership(self, org: str, user: str, role: str) -> dict[str, Any]:
        return {
            "id": f"orgmem_{org}_{user}",
            "object": "organization_membership",
            "role": role,
            "organization": self._organization(org),
            "public_user_data": {"user_id": user},
        }

    # Its Backend API

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Clerk"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self._tasks: set[asyncio.Task[Any]] = set()
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                line, *lines = head.strip().split("\r\n")
                fields = {name.lower(): value for name, value in (each.split(": ", 1) for each in lines)}
                status, content = self._answer(line.split()[1], fields)
                body = json.dumps(content).encode()
                writer.write(f"HTTP/1.1 {status} Said so\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    def _answer(self, target: str, fields: dict[str, str]) -> tuple[int, Any]:
        parts = urlsplit(target)
        self.asked.append(parts.path)
        if self.answers:
            return self.answers.pop(0), {"errors": []}
        if fields.get("authorization") != f"Bearer {SECRET_KEY}":
            return 401, {"errors": []}
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        offset, limit = int(query.get("offset", 0)), min(int(query.get("limit", 10)), self.page_rows_max)
        match parts.path.strip("/").split("/"):
            case ["v1", "users"]:
                return 200, list(self.users.values())[offset : offset + limit]
            case ["v1", "users", id_] if id_ in self.users:
                return 200, self.users[id_]
            case ["v1", "organizations"]:
                rows = [self._organization(each) for each in self.organizations]
                return 200, {"data": rows[offset : offset + limit], "total_count": len(rows)}
            case ["v1", "organizations", id_] if id_ in self.organizations:
                return 200, self._organization(id_)
            case ["v1", "organizations", id_, "memberships"] if id_ in self.organizations:
                rows = [self._membership(id_, user, role) for user, role in self.members[id_].items()]
                return 200, {"data": rows[offset : offset + limit], "total_count": len(rows)}
        return 404, {"errors": []}
