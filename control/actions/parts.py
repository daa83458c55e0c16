"""What actions work with."""

from dataclasses import dataclass

from common.clock import Clock
from control.access.activation.parts import Activation
from control.billing.parts import Billing
from control.db import Database
from control.entitlements.publish import Publisher
from control.ledger.streams import Streams
from control.reconcile.scan import Scan
from control.settings.approvals import Approvals
from identity.settings import ApiKeySettings
from quota.ledger import Ledger


@dataclass(frozen=True, slots=True)
class ActionParts:
    db: Database
    ledger: Ledger
    streams: Streams
    publisher: Publisher
    billing: Billing | None
    """None: nothing is sold here."""
    activation: Activation
    keys: ApiKeySettings
    scan: Scan
    approvals: Approvals
    clock: Clock
