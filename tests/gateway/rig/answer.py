"""An answer as a client receives it."""

import json
from dataclasses import dataclass, field
from typing import Any


class Cut(Exception):
    """The peer ended the connection in the middle of a message."""


@dataclass
class Answer:
    status: int
    fields: list[tuple[bytes, bytes]]
    """In order and case, as they came."""
    body: bytes
    interim: list[int]
    interim_fields: list[list[tuple[bytes, bytes]]] = field(default_factory=list)

    def all(self, name: str) -> list[str]:
        return [value.decode() for key, value in self.fields if key.lower() == name.encode()]

    def __getitem__(self, name: str) -> str | None:
        """The one field of that name, None without."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} stands in the answer {len(values)} times"
        return values[0] if values else None

    @property
    def problem(self) -> dict[str, Any]:
        assert self["content-type"] == "application/problem+json", (self.status, self.fields, self.body)
        problem: dict[str, Any] = json.loads(self.body)
        assert problem["status"] == self.status
        assert problem["correlation_id"]
        return problem

    @property
    def remaining(self) -> int:
        return int((self["ratelimit"] or "").partition("r=")[2].partition(";")[0])
