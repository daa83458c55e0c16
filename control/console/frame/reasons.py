"""Why something was not done, in a sentence for who wanted it."""

from typing import Final

from control.billing.failures import StripeAway
from control.console.frame.sections import FAULTS
from control.db import StoreUnavailable
from control.http.exception_handlers import REFUSALS
from control.http.refusals import Refusal
from quota.ledger import LedgerUnavailable

AWAY: Final = (StoreUnavailable, LedgerUnavailable, StripeAway)


def said(e: Exception) -> str:
    """Of a Refusal, or of what is one in the API."""
    if isinstance(e, Refusal):
        return str(e.detail)
    refusal_of = next(REFUSALS[each] for each in type(e).__mro__ if each in REFUSALS)
    detail = str(refusal_of(e).detail)
    # An API's client has the type of the problem beside the detail; a person has these words alone.
    return f"{FAULTS[type(e)]} {detail}" if type(e) in AWAY else detail
