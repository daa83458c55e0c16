"""The parameters of each call that the double honours. What Stripe takes and the double does not is refused, so that
no test relies on what was ignored.

They are paths, by the class of the call's parameters in `stripe.params`. A path includes all that is below it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from devstack.stripe.account import unsupported

_PAGE = "limit starting_after ending_before"
_TRIAL = "trial_settings.end_behavior.missing_payment_method"
_PRODUCT = "active description metadata name statement_descriptor tax_code"
_CUSTOMER = "address balance description email invoice_settings.default_payment_method metadata name phone shipping"
_DISCOUNT = ("discounts.coupon", "discounts.discount", "discounts.promotion_code")
_PHASE = (
    "automatic_tax.enabled collection_method currency default_payment_method description discounts duration end_date"
    " invoice_settings.days_until_due invoice_settings.issuer.type items.metadata items.price items.quantity metadata"
    " proration_behavior start_date trial trial_end"
)


def _paths(*texts: str) -> frozenset[str]:
    return frozenset(" ".join(texts).split())


HONOURED: Mapping[str, frozenset[str]] = {
    "ChargeRetrieveParams": _paths(),
    "CouponCreateParams": _paths(
        "amount_off currency duration duration_in_months id max_redemptions metadata name percent_off redeem_by"
    ),
    "CouponListParams": _paths(_PAGE, "created"),
    "CouponRetrieveParams": _paths(),
    "CreditNoteCreateParams": _paths(
        "amount credit_amount invoice memo metadata out_of_band_amount reason refund_amount"
    ),
    "CreditNoteListParams": _paths(_PAGE, "created customer invoice"),
    "CreditNoteRetrieveParams": _paths(),
    "CustomerBalanceTransactionCreateParams": _paths("amount currency description metadata"),
    "CustomerCreateParams": _paths(_CUSTOMER, "payment_method"),
    "CustomerListBalanceTransactionsParams": _paths(_PAGE, "created"),
    "CustomerListParams": _paths(_PAGE, "created email"),
    "CustomerRetrieveParams": _paths(),
    "CustomerUpdateParams": _paths(_CUSTOMER),
    "DisputeRetrieveParams": _paths(),
    "EventListParams": _paths(_PAGE, "created type types"),
    "EventRetrieveParams": _paths(),
    "InvoiceCreatePreviewParams": _paths(
        "discounts.coupon subscription subscription_details.cancel_at_period_end subscription_details.items.deleted"
        " subscription_details.items.id subscription_details.items.price subscription_details.items.quantity"
        " subscription_details.proration_behavior"
    ),
    "InvoiceFinalizeInvoiceParams": _paths("auto_advance"),
    "InvoiceItemCreateParams": _paths(
        "amount currency customer description discountable invoice metadata period quantity subscription"
        " unit_amount_decimal"
    ),
    "InvoiceItemListParams": _paths(_PAGE, "created customer invoice pending"),
    "InvoiceItemRetrieveParams": _paths(),
    "InvoiceLineItemListParams": _paths(_PAGE),
    "InvoiceListParams": _paths(_PAGE, "collection_method created customer status subscription"),
    "InvoiceMarkUncollectibleParams": _paths(),
    "InvoicePayParams": _paths(),
    "InvoicePaymentListParams": _paths(_PAGE, "created invoice status"),
    "InvoiceRetrieveParams": _paths(),
    "InvoiceVoidInvoiceParams": _paths(),
    "PaymentIntentRetrieveParams": _paths(),
    "PaymentMethodAttachParams": _paths("customer"),
    "PaymentMethodListParams": _paths(_PAGE, "customer type"),
    "PriceCreateParams": _paths(
        "active billing_scheme currency lookup_key metadata nickname product product_data.active product_data.id"
        " product_data.metadata product_data.name product_data.statement_descriptor product_data.tax_code"
        " recurring.interval recurring.interval_count recurring.meter recurring.usage_type tax_behavior"
        " tiers.flat_amount tiers.unit_amount tiers.unit_amount_decimal tiers.up_to tiers_mode transfer_lookup_key"
        " transform_quantity unit_amount unit_amount_decimal"
    ),
    "PriceListParams": _paths(_PAGE, "active created currency lookup_keys product type"),
    "PriceRetrieveParams": _paths(),
    "PriceUpdateParams": _paths("active lookup_key metadata nickname tax_behavior transfer_lookup_key"),
    "ProductCreateParams": _paths(_PRODUCT, "id"),
    "ProductListParams": _paths(_PAGE, "active created ids"),
    "ProductRetrieveParams": _paths(),
    "ProductUpdateParams": _paths(_PRODUCT, "default_price"),
    "PromotionCodeCreateParams": _paths("active code expires_at max_redemptions metadata promotion"),
    "PromotionCodeListParams": _paths(_PAGE, "active code created"),
    "RefundCreateParams": _paths("amount charge metadata payment_intent reason"),
    "RefundListParams": _paths(_PAGE, "charge created payment_intent"),
    "RefundRetrieveParams": _paths(),
    "SubscriptionCancelParams": _paths(
        "cancellation_details.comment cancellation_details.feedback invoice_now prorate"
    ),
    "SubscriptionCreateParams": _paths(
        "automatic_tax.enabled billing_cycle_anchor billing_mode.type cancel_at cancel_at_period_end collection_method"
        " currency customer days_until_due default_payment_method description items.metadata items.price"
        " items.quantity metadata payment_behavior proration_behavior trial_end trial_period_days",
        _TRIAL,
        *_DISCOUNT,
    ),
    "SubscriptionItemListParams": _paths(_PAGE, "subscription"),
    "SubscriptionListParams": _paths(_PAGE, "collection_method created customer price status"),
    "SubscriptionResumeParams": _paths("billing_cycle_anchor.type"),
    "SubscriptionRetrieveParams": _paths(),
    "SubscriptionScheduleCancelParams": _paths(),
    "SubscriptionScheduleCreateParams": _paths("from_subscription metadata"),
    "SubscriptionScheduleListParams": _paths(_PAGE, "created customer"),
    "SubscriptionScheduleReleaseParams": _paths(),
    "SubscriptionScheduleRetrieveParams": _paths(),
    "SubscriptionScheduleUpdateParams": _paths(
        "end_behavior metadata proration_behavior", " ".join(f"phases.{each}" for each in _PHASE.split())
    ),
    "SubscriptionUpdateParams": _paths(
        "automatic_tax.enabled billing_cycle_anchor.type cancel_at cancel_at_period_end cancellation_details.comment"
        " cancellation_details.feedback collection_method days_until_due default_payment_method description"
        " items.deleted items.id items.metadata items.price items.quantity metadata pause_collection payment_behavior"
        " proration_behavior proration_date trial_end",
        _TRIAL,
        *_DISCOUNT,
    ),
    "WebhookEndpointCreateParams": _paths("description enabled_events metadata url"),
    "WebhookEndpointListParams": _paths(_PAGE),
    "billing.MeterCreateParams": _paths("default_aggregation.formula display_name event_name"),
    "billing.MeterDeactivateParams": _paths(),
    "billing.MeterEventCreateParams": _paths("event_name identifier payload timestamp"),
    "billing.MeterListEventSummariesParams": _paths(_PAGE, "customer end_time start_time"),
    "billing.MeterListParams": _paths(_PAGE, "status"),
    "billing.MeterRetrieveParams": _paths(),
    "billing_portal.ConfigurationCreateParams": _paths(
        "features.customer_update features.invoice_history features.payment_method_update.enabled"
        " features.subscription_cancel.enabled features.subscription_cancel.mode metadata name"
    ),
    "billing_portal.ConfigurationListParams": _paths(_PAGE, "active is_default"),
    "billing_portal.ConfigurationRetrieveParams": _paths(),
    "billing_portal.SessionCreateParams": _paths("configuration customer return_url"),
    "checkout.SessionCreateParams": _paths(
        "allow_promotion_codes automatic_tax.enabled cancel_url client_reference_id customer customer_email"
        " customer_update discounts.coupon discounts.promotion_code expires_at line_items.price line_items.quantity"
        " metadata mode payment_method_collection subscription_data.metadata subscription_data.trial_period_days"
        " success_url tax_id_collection.enabled ui_mode",
        f"subscription_data.{_TRIAL}",
    ),
    "checkout.SessionExpireParams": _paths(),
    "checkout.SessionListParams": _paths(_PAGE, "created customer status subscription"),
    "checkout.SessionRetrieveParams": _paths(),
}

ONLY: Mapping[str, Mapping[str, frozenset[Any]]] = {
    "SubscriptionCreateParams": {
        "payment_behavior": frozenset({"allow_incomplete", "default_incomplete", "error_if_incomplete"}),
        "proration_behavior": frozenset({"create_prorations", "none"}),
    },
    "SubscriptionResumeParams": {
        "billing_cycle_anchor.type": frozenset({"now"}),
    },
    "SubscriptionScheduleUpdateParams": {
        "end_behavior": frozenset({"cancel", "release"}),
        "phases.invoice_settings.issuer.type": frozenset({"self"}),
    },
    "billing.MeterCreateParams": {"default_aggregation.formula": frozenset({"sum"})},
    "billing_portal.ConfigurationCreateParams": {
        "features.subscription_cancel.mode": frozenset({"at_period_end"}),
    },
    "checkout.SessionCreateParams": {
        "mode": frozenset({"subscription"}),
        "ui_mode": frozenset({"hosted_page"}),
    },
}
"""The values of parameters that are honoured with these values only; others are refused."""


OF_OTHER_PAGES = frozenset({"customer_update", "ui_mode"})
"""These have no effect on the double: nothing is filled in on its page that could be kept with a customer, and it has
one page only."""


class Watched(dict[str, Any]):
    """A call's parameters; `unseen` are those that nothing has looked at."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        super().__init__(params)
        self.unseen = set(params) - OF_OTHER_PAGES

    def __getitem__(self, name: str) -> Any:
        self.unseen.discard(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        self.unseen.discard(name)
        return super().get(name, default)

    def pop(self, name: str, *default: Any) -> Any:
        self.unseen.discard(name)
        return super().pop(name, *default)

    def __contains__(self, name: object) -> bool:
        self.unseen.discard(str(name))
        return super().__contains__(name)

    def items(self) -> Any:
        self.unseen.clear()
        return super().items()


def refuse_unsupported(name: str | None, params: Mapping[str, Any]) -> None:
    """Raises RequestRefused for what the double does not honour. `name`: of the class; None where there is none."""
    honoured = HONOURED[name] if name is not None else frozenset[str]()
    only = ONLY.get(name or "", {})
    for path, value in leaves(params, honoured):
        bare = bare_path(path)
        if not _is_below(bare, honoured):
            message = f"The stand-in for Stripe does not support the parameter {path}, which Stripe takes."
            raise unsupported(message, path)
        if bare in only and value not in only[bare]:
            allowed = ", ".join(sorted(only[bare]))
            raise unsupported(f"The stand-in for Stripe does not support {path}={value}, only {allowed}.", path)


def leaves(value: Any, honoured: frozenset[str], at: str = "") -> Iterator[tuple[str, Any]]:
    """The parameters that are set, each with its path in the form; nothing below one that is honoured as a whole."""
    if at and bare_path(at) in honoured:
        yield at, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from leaves(inner, honoured, f"{at}[{name}]" if at else name)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from leaves(inner, honoured, f"{at}[{number}]")
    elif value not in (None, ""):  # what the double does not honour is unset anyway
        yield at, value


def bare_path(path: str) -> str:
    """`items[0][price]` as items.price."""
    steps = [step.rstrip("]") for step in path.split("[")]
    return ".".join(step for step in steps if not step.isdigit())


def _is_below(path: str, honoured: frozenset[str]) -> bool:
    return any(path == each or path.startswith(f"{each}.") for each in honoured)
