"""Query parameters that an endpoint does not know: refused by name, since a filter that is left out in silence shows
everything as if it had been filtered."""

import difflib
from collections.abc import Iterable

from fastapi import Request

from control.http.documented import endpoints_of
from control.http.refusals import Refusal
from quota import problems


def only_known(request: Request) -> None:
    """Raises Refusal."""
    if not request.scope["query_string"]:
        return
    for endpoint in endpoints_of(request.app, request.scope["path"]):
        known = endpoint.queries.get(request.method)
        if known is None:
            continue
        for name in request.query_params:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known) or 'none'}"
                message = f"is no parameter of this endpoint ({hint})"
                errors = [{"field": f"query.{name}", "message": message}]
                raise Refusal(problems.INVALID, f"query.{name}: {message}", errors=errors)


def unknown_word(parameter: str, value: str, known: Iterable[str]) -> Refusal:
    """Of a filter whose value is none of the words that there are: nothing would be found, whatever is there."""
    words = sorted(known)
    close = difflib.get_close_matches(value, words, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(words) or 'none'}"
    field, message = f"query.{parameter}", f"is not known ({hint})"
    return Refusal(problems.INVALID, f"{field}: {message}", errors=[{"field": field, "message": message}])
