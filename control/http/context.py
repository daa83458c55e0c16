"""What the endpoints work with. The composition root builds it once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

from fastapi import Depends, Request

from common.certificate_dates import Until
from common.clock import Clock
from common.networks import Networks
from control.access.activation.parts import Activation
from control.access.callers import Callers
from control.access.guesses import Guesses
from control.access.issuing.issuer import Issuer
from control.access.parts import Access
from control.access.people.mirror.parts import Mirror
from control.access.portal.sessions import PortalSessions
from control.access.signin.parts import SignInParts
from control.access.signin.provider import OpenIdProvider
from control.actions.parts import ActionParts
from control.attention.feed import Feed
from control.audit.sealer import Sealer
from control.background import Background
from control.billing.parts import Billing
from control.db import Database
from control.decisions.explainer import Explainer
from control.directory.projection import Directory
from control.entitlements.publish import Publisher
from control.http.request_times import RequestTimes
from control.ledger.clocks import Clocks
from control.ledger.streams import Streams
from control.reconcile.reconciler import Reconciler
from control.reconcile.recovery import Recovery
from control.reconcile.scan import Scan
from control.regions.service import RegionService
from control.replica import Reading
from control.settings.approvals import Approvals
from control.settings.control_plane import Expose
from control.settings.costs import Costs
from control.settings.portal import CustomerSignIn
from control.usage.archive import Archiver
from control.usage.buckets import Buckets
from control.usage.reporter import Reporter
from control.usage.writer import Writer
from quota.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Context:
    db: Database
    reading: Reading
    """For what is only shown, and may be a few seconds old."""
    ledger: Ledger
    streams: Streams
    publisher: Publisher
    writer: Writer
    reporter: Reporter
    buckets: Buckets
    archiver: Archiver
    explainer: Explainer
    background: Background
    recovery: Recovery
    regional: RegionService | None
    """None: there is one region."""
    reconciler: Reconciler
    scan: Scan
    directory: Directory
    sealer: Sealer
    tiles: Feed
    """Of this process' viewers."""
    access: Access
    clock: Clock
    """The clock by which periods begin and end: Redis' (control/ledger/clocks.py)."""
    host_clock: Clock
    """This machine's clock, for signatures and tokens of outsiders."""
    clocks: Clocks
    expose: Expose
    trusted: Networks
    """Proxies in front, whose X-Forwarded-For is believed."""
    billing: Billing | None
    """None: nothing is sold here."""
    approvals: Approvals
    costs: Costs
    """What serving costs."""
    certificates: Sequence[tuple[Path, Until]]
    """Files that the settings name, and how long those of each last."""
    requests: RequestTimes
    """How long this process took to answer."""

    @property
    def actions(self) -> ActionParts:
        """What actions of admins work with."""
        return ActionParts(
            self.db,
            self.ledger,
            self.streams,
            self.publisher,
            self.billing,
            self.activation,
            self.access.keys,
            self.scan,
            self.approvals,
            self.clock,
        )

    @property
    def callers(self) -> Callers:
        return self.access.callers

    @property
    def activation(self) -> Activation:
        return self.access.activation

    @property
    def issuer(self) -> Issuer | None:
        """None: no tokens are issued here."""
        return self.access.issuer

    @property
    def signin(self) -> SignInParts:
        return self.access.signin

    @property
    def portal(self) -> PortalSessions:
        return self.access.portal.sessions

    @property
    def portal_provider(self) -> OpenIdProvider[CustomerSignIn] | None:
        """At which customers sign in; None: only links open the portal."""
        return self.access.portal.provider

    @property
    def portal_url(self) -> str:
        """Where browsers reach the portal."""
        return self.access.portal.url

    @property
    def guesses(self) -> Guesses:
        """Wrong secrets, counted by address and by secret."""
        return self.access.guesses

    @property
    def mirror(self) -> Mirror | None:
        """None: people are not mirrored."""
        return self.access.mirror


async def context_of(request: Request) -> Context:  # async, since FastAPI runs a function in a thread
    return cast("Context", request.app.state.context)


Ctx = Annotated[Context, Depends(context_of)]
