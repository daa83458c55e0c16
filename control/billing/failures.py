"""The failures of billing. Only StripeAway is worth another try."""


class StripeAway(Exception):
    """Stripe does not answer, or not now."""


class StripeRefused(Exception):
    """Stripe refuses this. The message is for the admin.

    `final`: Stripe would refuse the same request at any time, so it is not tried again. Otherwise somebody may mend the
    cause at Stripe: a key that lacks a permission, an account that is closed."""

    def __init__(self, message: str, code: str | None = None, *, final: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.final = final


class StripeMissing(StripeRefused):
    """Stripe has no such object."""


class StripeForbidden(StripeRefused):
    """The key is not valid, or lacks a permission."""


class SecondPersonNeeded(Exception):
    """Somebody else has to approve this; nothing was asked of Stripe. The message is for the admin."""


class SubscribedAlready(Exception):
    """The organization has a subscription that is in force: change that."""


class NotSubscribed(Exception):
    """The organization has no subscription that is in force."""


class PlanNotSold(Exception):
    """The plan has no such price at Stripe: `quotagate plans apply --stripe`."""
