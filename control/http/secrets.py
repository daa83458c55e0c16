"""For endpoints that take a secret in place of a token: activation, refresh, sign-in, a key that is to be judged."""

from typing import Annotated

from fastapi import Depends, Request

from control.http.context import Ctx


async def client_address(request: Request) -> str:
    """By which guesses are counted: the client's, where a trusted proxy is in front."""
    address: str = request.scope["client_address"]
    return address


ClientAddress = Annotated[str, Depends(client_address)]


async def admit(ctx: Ctx, client: ClientAddress) -> None:
    """Raises TooManyGuesses: 429."""
    await ctx.guesses.admit(client)


TakesSecrets = Depends(admit)
"""The rate limit of such an endpoint, which it shares with all others of its kind."""
