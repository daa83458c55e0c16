"""The issuer, for endpoints that hand out tokens."""

from typing import Annotated

from fastapi import Depends

from control.access.issuing.issuer import Issuer
from control.http.context import Ctx
from control.http.refusals import Refusal
from quota import problems

NOT_ISSUING = "This control plane issues no tokens: its settings have no `issuing.master_key`."


async def require_issuer(ctx: Ctx) -> Issuer:
    if ctx.issuer is None:
        raise Refusal(problems.CONFLICT, NOT_ISSUING, reason="not_issuing")
    return ctx.issuer


TokenIssuer = Annotated[Issuer, Depends(require_issuer)]
"""409 where the control plane issues nothing. It goes behind the guard: who may not ask is told nothing else."""
