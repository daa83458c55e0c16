"""What the settings name that somebody else runs: upstreams, and issuers with their keys."""

import asyncio
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from quotagate.diagnosis.certificates import judge_end
from quotagate.diagnosis.finding import Finding, judged

if TYPE_CHECKING:
    from control.settings.control_plane import Settings
    from gateway.settings.upstreams import Upstream
    from identity.settings import Auth, IssuerSettings


def of_upstreams(upstreams: "Mapping[str, Upstream]") -> list[Finding]:
    """Connects as the gateway does: to all targets at once, since a silent one takes its whole timeout."""

    async def connect() -> list[Finding]:
        each = ((name, url, upstream) for name, upstream in upstreams.items() for url in upstream.urls)
        return list(await asyncio.gather(*(_try_target(*one) for one in each)))

    return asyncio.run(connect())


async def _try_target(name: str, url: str, upstream: "Upstream") -> Finding:
    from gateway.upstream.endpoint import connect_to_addresses

    what = f"upstream {name}"
    try:
        reached = await connect_to_addresses(url, upstream)
    except TimeoutError:
        return judged(False, what, f"{url} does not answer within {upstream.connect_timeout_seconds:g} s")
    except OSError as e:  # ssl.SSLError is one
        return judged(False, what, f"the connection to {url} failed: {_reason(e)}")
    good, secured = True, ""
    if reached.certificate_ends is not None:
        good, ends = judge_end(reached.certificate_ends, time.time())
        secured = f", and its certificate is trusted and {ends}"
    if upstream.tls is not None and not upstream.tls.verify:
        secured = ", and its certificate is not checked (tls.verify is false)"
    return judged(good, what, f"{url} accepts connections at {', '.join(reached.addresses)}{secured}")


def _reason(e: OSError) -> str:
    if isinstance(e, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {e.verify_message}"
    return str(e) or type(e).__name__


def of_issuers(what: str, auth: "Auth") -> Iterator[Finding]:
    """`what`: whose settings they are."""
    for issuer in auth.trusted:
        yield of_keys(what if len(auth.trusted) == 1 else f"{what}: {issuer.issuer}", issuer)


def of_providers(settings: "Settings") -> Iterator[Finding]:
    """By whose word people sign in to the console and to the portal."""
    from identity.settings import IssuerSettings

    providers = [(f"sign-in: {each.name}", each) for each in settings.signin.providers]
    portal = settings.portal.sign_in
    for what, provider in [*providers, *([("portal sign-in", portal)] if portal is not None else [])]:
        issuer = IssuerSettings(issuer=provider.issuer, algorithms=provider.algorithms, discovery=True)
        yield of_keys(what, issuer)


def of_keys(what: str, issuer: "IssuerSettings") -> Finding:
    """Reads the key set as both planes do."""
    from identity.keysets.jwk import KeySetUnavailable
    from identity.keysets.keyset import look, source_of

    if issuer.secret is not None:
        return judged(True, what, f"a shared secret for {', '.join(issuer.algorithms)}")
    try:
        keys = asyncio.run(look(issuer))
    except KeySetUnavailable as e:
        return judged(False, what, f"{source_of(issuer)}: {e}")
    usable = "1 usable key" if len(keys) == 1 else f"{len(keys)} usable keys"
    return judged(True, what, f"{source_of(issuer)} has {usable} for {', '.join(issuer.algorithms)}")
