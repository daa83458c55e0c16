"""No published attack on verifiers of JWTs is let in, and none makes anybody ask an address that it names."""

import time
from collections import Counter
from pathlib import Path

import pytest

from identity.issuers import Issuers
from identity.refusals import TokenRefused
from identity.settings import Auth
from identity.tokens import TokenVerifier
from tests.gateway.rig import MakeOrganization, StartGateway, Upstream
from tests.identity.attacks import Attack, attacks, good, key_sets, trusted

NOWHERE = "http://127.0.0.1:1/evil"
ATTACKS = attacks(NOWHERE)


@pytest.fixture
def sources(tmp_path: Path) -> list[str]:
    files = [tmp_path / "web.json", tmp_path / "devices.json"]
    for file, body in zip(files, key_sets(), strict=True):
        file.write_bytes(body)
    return [str(file) for file in files]


async def verifier(sources: list[str]) -> TokenVerifier:
    settings = Auth.model_validate({"issuers": trusted(*sources)}, strict=False)
    issuers = Issuers(settings)
    for keys in issuers.key_sets.values():
        assert await keys.refresh()
    return TokenVerifier(settings, issuers.key_sets, time.time)


async def test_no_attack_is_believed_and_each_is_refused_for_what_it_is(sources: list[str]) -> None:
    checker = await verifier(sources)
    assert [checker.verify(token).org for token in good()] == ["acme"] * 4
    assert len(ATTACKS) > 150
    assert not [name for name, many in Counter(name for name, _, _ in ATTACKS).items() if many > 1]
    wrong = [(name, reason, outcome) for name, token, reason in ATTACKS if (outcome := tried(checker, token)) != reason]
    assert wrong == []


def tried(checker: TokenVerifier, token: bytes) -> str:
    """The reason of the refusal, or what was let in."""
    try:
        return f"believed: {checker.verify(token)}"
    except TokenRefused as refused:
        return refused.reason


def can_be_sent(attack: Attack) -> bool:
    return not set(b"\n\0 ,") & set(attack[1])  # of others the reader of requests has its own tests


async def test_no_attack_gets_through_the_gateway_or_makes_it_ask_another_address(
    start: StartGateway, organization: MakeOrganization, upstream: Upstream, issuer: Upstream, sources: list[str]
) -> None:
    acme = await organization("acme", 1000)
    gateway = await start(
        auth={"issuers": trusted(*sources), "issuer": None, "algorithms": None, "secret": None, "audience": None}
    )
    client = await gateway.connect()
    sent = list(filter(can_be_sent, attacks(issuer.url)))
    assert len(sent) > 140
    for name, token, _ in sent:
        answer = await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n\r\n" % token)
        assert answer.status == 401, name
        assert answer["www-authenticate"] is not None, name
    assert not upstream.requests
    assert not issuer.requests
    assert await acme.events() == []
    for token in good():
        answer = await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %b\r\n\r\n" % token)
        assert answer.status == 200
