"""As bench/revocation.py, with fewer revocations: clients go on asking while one after the other is revoked."""

import asyncio

from bench.revocation import TRIES, Load, Principal
from quota.access import Mark, MarkKind
from tests.gateway.access.tokens import bearer
from tests.gateway.rig import MakeOrganization, StartProcess, request
from tests.gateway.rig.keys import Keyring, revoke

EACH = 12  # keys, and as many tokens


async def test_of_requests_that_begin_after_a_revocation_none_of_four_processes_admits_one(
    run: StartProcess, organization: MakeOrganization
) -> None:
    acme = await organization("acme", 10**9)
    keyring = Keyring()
    keys = [await keyring.make(acme) for _ in range(EACH)]
    tokens = [f"t{number}" for number in range(EACH)]
    fields = [key.auth for key in keys] + [bearer(jti=token) for token in tokens]
    principals = [Principal(request(field), ("", "", None)) for field in fields]
    gateway = await run(workers=4)
    load = Load(principals, 300)
    await load.connect(gateway.port)
    running = asyncio.create_task(load.run())
    load.due.extend(principal for principal in principals for _ in range(8))
    await load.drained(answered=False)
    for at, principal in enumerate(principals):
        if at < EACH:
            await keys[at].revoke()
        else:
            await revoke(acme, Mark(MarkKind.TOKEN, tokens[at - EACH]))
        principal.revoked = True
        load.due.extend([principal] * TRIES)
        load.send(TRIES)
    await load.drained(answered=False)
    running.cancel()
    await load.drained(answered=True)
    load.close()
    # On a loaded machine Redis may owe a reply for longer than its budget: 503, which admits nobody.
    assert set(load.before) <= {200, 401, 503}
    assert set(load.later) <= {401, 503}
    assert load.later[401]
    assert sum(load.later.values()) >= TRIES * len(principals)
