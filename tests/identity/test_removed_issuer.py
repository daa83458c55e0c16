"""An issuer that is taken out of the settings is believed by nobody after the reload, whatever was remembered."""

import signal
import time

import jwt

from tests.gateway.rig import PROCESS_SECONDS, Client, Connect, MakeOrganization, StartProcess, Until

SECRETS = {"https://a.example": "a" * 32, "https://b.example": "b" * 32}


def request(issuer: str) -> bytes:
    claims = {"iss": issuer, "org_id": "acme", "exp": int(time.time()) + 3600}
    token = jwt.encode(claims, SECRETS[issuer], "HS256")
    return f"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


async def test_tokens_of_an_issuer_that_is_removed_are_refused_from_the_reload_on(
    run: StartProcess, connect: Connect, organization: MakeOrganization, until: Until
) -> None:
    await organization("acme", 100)
    issuers = [{"issuer": name, "algorithms": ["HS256"], "secret": secret} for name, secret in SECRETS.items()]
    unnamed = {"issuer": None, "algorithms": None, "secret": None, "audience": None}
    gateway = await run(auth={**unnamed, "issuers": issuers})
    kept, removed = SECRETS
    known = request(removed)

    async def known_clients(number: int) -> list[Client]:
        clients = [await connect(gateway.port) for _ in range(number)]
        for client in clients:
            assert [(await client.ask(each)).status for each in (known, request(kept), known)] == [200] * 3
        return clients

    async def reload(**changes: object) -> None:
        done = gateway.logged("settings read again")
        gateway.write({**gateway.settings, **changes})
        gateway.signal(signal.SIGHUP)
        await until(lambda: gateway.logged("settings read again") > done, PROCESS_SECONDS)

    clients = await known_clients(4)
    await reload(standby=False)  # which closes none of them
    clients += await known_clients(2)
    await reload(auth={**unnamed, "issuers": issuers[:1]})
    for client in clients:
        assert await client.rest() == b"", "no request is taken where the issuer is remembered"
    client = await connect(gateway.port)
    answer = await client.ask(known)
    assert (answer.status, answer.problem["reason"]) == (401, "wrong_issuer")
    assert (await client.ask(request(kept))).status == 200
