"""Query parameters that an endpoint does not know are refused by name: if a filter were ignored in silence, everything
would look as if it had been filtered."""

import difflib
from collections.abc import Iterable

from fastapi import Request

from control.db import Database
from control.entitlements import stored_state
from control.http.documented import endpoints_of
from control.http.refusals import Refusal, invalid_field


def refuse_unknown_queries(request: Request) -> None:
    """Raises Refusal."""
    if not request.scope["query_string"]:
        return
    for endpoint in endpoints_of(request.app, request.scope["path"]):
        parameters = endpoint.queries.get(request.method)
        if parameters is None:
            continue
        for name in request.query_params:
            if name not in parameters:
                close = difflib.get_close_matches(name, parameters, n=1)
                hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(parameters) or 'none'}"
                message = f"is not a parameter of this endpoint ({hint})"
                raise invalid_field(f"query.{name}", message)
        return  # the first that fits is called, as in `/v1/journal/chain` before `/v1/journal/{entry}`


def unknown_word(parameter: str, value: str, allowed: Iterable[str]) -> Refusal:
    """Refuses a filter whose value is not a known word: it would match nothing, whatever is there."""
    words = sorted(allowed)
    close = difflib.get_close_matches(value, words, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(words) or 'none'}"
    return invalid_field(f"query.{parameter}", f"is not known ({hint})")


async def refuse_unknown_meter(db: Database, meter: str | None) -> None:
    """Raises Refusal, StoreUnavailable."""
    if meter is not None and meter not in (known := await stored_state.known_meters(db)):
        raise unknown_word("meter", meter, known)
