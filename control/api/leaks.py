"""`/v1/keys`: whose key a text is, and keys that were found in public."""

from typing import Annotated, Literal

import structlog
from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import JSONResponse

from control.access import publishing
from control.access.guesses import Guess
from control.access.keys import leaks
from control.access.keys.leak_reports import ReportRefused
from control.access.permissions import Permission
from control.api.key_views import KeyView, key_view
from control.documents import Body, View
from control.http.context import Ctx
from control.http.guards import Allowed
from control.http.refusals import DOCUMENTED, Refusal
from control.http.secrets import ClientAddress, TakesSecrets
from control.journal import Author
from identity.keysets.jwk import KeySetUnavailable
from quota import problems

log = structlog.get_logger()
router = APIRouter(prefix="/v1/keys", tags=["keys"], responses=DOCUMENTED)

IDENTIFIER = b"github-public-key-identifier"
SIGNATURE = b"github-public-key-signature"
SIGNATURE_CHARACTERS_MAX = 512


class KeyTextBody(Body):
    key: Annotated[str, Field(min_length=1, max_length=512)]
    """The text that may be a key. It is neither stored nor logged."""


class VerifiedView(View):
    form: Literal["key", "other"]
    """key: it has the form of our keys, and its checksum is right."""
    organization: str | None
    key: KeyView | None
    """null: it is no key of any organization."""


@router.post("/verify", dependencies=[TakesSecrets, Allowed(Permission.KEYS_READ)])
async def verify_key(body: KeyTextBody, ctx: Ctx) -> VerifiedView:
    """Tells which key a text is, whose, and in what state: for a text that was found where it should not be."""
    judged = await leaks.judge(ctx.db, body.key, ctx.access.keys.prefix)
    return VerifiedView(
        form="key" if judged.well_formed else "other",
        organization=judged.key.org if judged.key else None,
        key=key_view(judged.key, ctx.clock()) if judged.key else None,
    )


@router.post(
    "/leaks", include_in_schema=False, dependencies=[TakesSecrets]
)  # who calls it is proved by a signature, not by a token
async def report_leaks(request: Request, ctx: Ctx, client: ClientAddress) -> JSONResponse:
    """Where GitHub's secret scanning sends what it has found. The answer labels each text, by its SHA-256."""
    reporting = ctx.access.leak_reports
    if reporting is None:
        raise Refusal(problems.NOT_FOUND, "Reports of leaked keys are not set up.")
    await ctx.guesses.check(Guess.KEY, client)
    payload = await request.body()
    try:
        reported = await reporting.read(_header(request, IDENTIFIER), _header(request, SIGNATURE), payload)
    except ReportRefused as e:
        await ctx.guesses.count(Guess.KEY, client)
        log.warning("refused a report of leaked keys", reason=str(e))
        raise Refusal(problems.BAD_REQUEST, f"The report is refused: {e}.") from e
    except KeySetUnavailable as e:
        raise Refusal(problems.KEYS_UNAVAILABLE, "The scanner's public keys could not be read. Try again.") from e
    author = Author("leak report", request.scope["correlation_id"])
    found = await leaks.handle(ctx.db, reported, ctx.access.keys.prefix, ctx.clock(), author, revoke=reporting.revokes)
    for org in dict.fromkeys(each.judged.key.org for each in found if each.revoked_now and each.judged.key):
        await publishing.enforce(ctx.publisher, org)
    labels = [
        {
            "token_hash": each.judged.sha256.hex(),
            "token_type": each.leak.token_type,
            "label": "false_positive" if each.judged.key is None else "true_positive",
        }
        for each in found
    ]
    return JSONResponse(labels)


def _header(request: Request, name: bytes) -> str:
    values: list[bytes] = [value for each, value in request.scope["headers"] if each == name]
    if len(values) != 1 or len(values[0]) > SIGNATURE_CHARACTERS_MAX:
        raise ReportRefused("it needs the fields Github-Public-Key-Identifier and Github-Public-Key-Signature, once")
    return values[0].decode("latin-1")
