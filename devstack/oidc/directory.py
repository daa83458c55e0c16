"""Who may use the provider: clients and people, from a JSON file that is read again for each request.

    {"clients": [{"client_id": "console", "client_secret": "…", "redirect_uris": ["…"],
                  "post_logout_redirect_uris": ["…"]}],
     "people": [{"username": "ada", "password": "…", "claims": {"sub": "1", "email": "ada@example.com", …}}]}

Passwords are in the file as they are: these people are made up.
"""

import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class Client:
    client_id: str
    client_secret: str
    redirect_uris: Sequence[str]
    post_logout_redirect_uris: Sequence[str] = ()
    thin_id_tokens: bool = False
    """Only userinfo tells who somebody is, as some providers have it."""


@dataclass(frozen=True)
class Person:
    username: str
    password: str
    claims: Mapping[str, Any]

    @property
    def subject(self) -> str:
        return str(self.claims["sub"])


@dataclass(frozen=True)
class Directory:
    clients: Mapping[str, Client]
    people: Mapping[str, Person]

    @classmethod
    def read(cls, file: Path) -> Self:
        content = json.loads(file.read_text())
        clients = [Client(**each) for each in content["clients"]]
        people = [Person(**each) for each in content["people"]]
        return cls({each.client_id: each for each in clients}, {each.username: each for each in people})

    def authenticated(self, username: str, password: str) -> Person | None:
        person = self.people.get(username)
        if person is None or not hmac.compare_digest(person.password.encode(), password.encode()):
            return None
        return person
