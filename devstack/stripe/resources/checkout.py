"""Checkout sessions. Customer and subscription are made when the page's "pay" is pressed, not before."""

from devstack.stripe.account import Account, Object, RequestRefused, card_declined, timer, unused
from devstack.stripe.dispatch import listing, route
from devstack.stripe.resources import amounts, customers, subscriptions

OPEN_SECONDS = 24 * 3600
EXCLUSIVE = (("customer", "customer_email"), ("allow_promotion_codes", "discounts"))
NULL_AT_FIRST = (
    "adaptive_pricing after_expiration allowed_payment_method_types billing_address_collection client_secret"
    " collected_information consent consent_collection currency_conversion customer_account customer_creation"
    " customer_details integration_identifier invoice invoice_creation locale managed_payments origin_context"
    " payment_intent payment_link payment_method_configuration_details payment_method_options permissions"
    " recovered_from saved_payment_method_options setup_intent shipping_address_collection shipping_cost submit_type"
    " subscription wallet_options"
)


@route("POST", "/v1/checkout/sessions", "checkout.SessionCreateParams")
def create(account: Account, params: Object) -> Object:
    check_params(params)
    if params.get("customer"):
        customers.alive(account, params["customer"])
    line_items = params.get("line_items") or []
    prices = [_offered_price(account, each) for each in line_items]
    for discount in params.get("discounts") or []:
        _check_discount(account, discount)
    trial_days = (params.get("subscription_data") or {}).get("trial_period_days")
    total = 0 if trial_days else total_of(prices, line_items)
    session_id = account.new_id("cs_test")
    session = account.add(
        {
            "id": session_id,
            "object": "checkout.session",
            "created": account.clock.now(),
            "currency": account.get("price", params["line_items"][0]["price"])["currency"],
            "expires_at": params.get("expires_at", account.clock.now() + OPEN_SECONDS),
            "url": f"{account.settings.get('url', '')}/checkout/{session_id}",
            **_of_params(params),
            **_of_page(total),
            **unused(NULL_AT_FIRST),
        }
    )
    account.note(session_id)["params"] = params
    account.at(session["expires_at"], "session_expires", session_id)
    return session


@route("GET", "/v1/checkout/sessions", "checkout.SessionListParams")
def list_(account: Account, params: Object) -> Object:
    sessions = account.find(
        "checkout.session",
        customer=params.get("customer"),
        subscription=params.get("subscription"),
        status=params.get("status"),
    )
    return listing(sessions, params, "/v1/checkout/sessions")


@route("GET", "/v1/checkout/sessions/{session_id}", "checkout.SessionRetrieveParams")
def retrieve(account: Account, params: Object, session_id: str) -> Object:
    return account.get("checkout.session", session_id)


@route("POST", "/v1/checkout/sessions/{session_id}/expire", "checkout.SessionExpireParams")
def expire(account: Account, params: Object, session_id: str) -> Object:
    session = account.get("checkout.session", session_id)
    if session["status"] != "open":
        raise RequestRefused("Only Checkout Sessions with a status of open can be expired.", param="session")
    _expire(account, session)
    return session


def complete(account: Account, session_id: str, method: str = "pm_card_visa", code: str | None = None) -> Object:
    """What "pay" does. Raises RequestRefused where the card or the promotion code is refused."""
    session = account.get("checkout.session", session_id)
    if session["status"] != "open":
        raise RequestRefused("This Checkout Session is no longer active.", param="session")
    params = account.note(session_id)["params"]
    discounts = params.get("discounts") or ([_discount_of_code(account, code)] if code else [])
    if needs_card(params) and customers.CARDS.get(method) != "good":
        raise card_declined()
    if session["customer"] is None:
        customer = customers.make(account, {"email": session["customer_email"], "name": None})
        session["customer"] = customer["id"]
    if method:
        customers.attach(account, account.get("customer", session["customer"]), method)
    subscription = subscriptions.make(account, subscription_params(params, session["customer"], discounts))
    invoice = account.get("invoice", subscription["latest_invoice"])
    session.update(
        status="complete",
        payment_status="paid" if invoice["amount_paid"] else "no_payment_required",
        subscription=subscription["id"],
        invoice=invoice["id"],
        customer_details={
            "email": session["customer_email"],
            "tax_exempt": "none",
            "tax_ids": [],
            **unused("address business_name individual_name name phone"),
        },
    )
    account.emit("checkout.session.completed", session)
    return session


def check_params(params: Object) -> None:
    """Raises RequestRefused."""
    if params.get("mode") != "subscription":
        raise RequestRefused("The stand-in for Stripe has sessions for subscriptions only.", param="mode")
    if not params.get("success_url"):
        raise RequestRefused("Missing required param: success_url.", code="parameter_missing", param="success_url")
    for names in EXCLUSIVE:
        if all(params.get(name) for name in names):
            message = f"You may only specify one of these parameters: {', '.join(names)}."
            raise RequestRefused(message, param="customer" if "customer" in names else "discounts")


def total_of(prices: list[Object], line_items: list[Object]) -> int:
    """What is due for the first period; usage is not."""
    return sum(
        amounts.amount_of(price, line_item.get("quantity", 1))
        for price, line_item in zip(prices, line_items, strict=True)
        if price["recurring"]["usage_type"] == "licensed"
    )


def needs_card(params: Object) -> bool:
    """A trial begins without one where that is asked for."""
    trial_days = (params.get("subscription_data") or {}).get("trial_period_days")
    return not (trial_days and params.get("payment_method_collection") == "if_required")


def subscription_params(params: Object, customer_id: str, discounts: list[Object]) -> Object:
    """The subscription that a session sells, as `subscriptions.make` takes it."""
    data = params.get("subscription_data") or {}
    return {
        **{name: data[name] for name in ("metadata", "trial_period_days", "trial_settings") if name in data},
        "customer": customer_id,
        "items": [
            {name: each[name] for name in ("price", "quantity") if name in each} for each in params["line_items"]
        ],
        "discounts": discounts,
        "automatic_tax": params.get("automatic_tax") or {"enabled": False},
        "payment_behavior": "allow_incomplete",
    }


def _of_params(params: Object) -> Object:
    """What the request says, or Stripe where it does not."""
    return {
        "allow_promotion_codes": params.get("allow_promotion_codes"),
        "automatic_tax": {
            "enabled": False,
            **unused("liability provider status"),
            **(params.get("automatic_tax") or {}),
        },
        "cancel_url": params.get("cancel_url"),
        "client_reference_id": params.get("client_reference_id"),
        "customer": params.get("customer"),
        "customer_email": params.get("customer_email"),
        "metadata": params.get("metadata") or {},
        "payment_method_collection": params.get("payment_method_collection", "always"),
        "success_url": params["success_url"],
        "tax_id_collection": {"enabled": False, "required": "never", **(params.get("tax_id_collection") or {})},
    }


def _of_page(total: int) -> Object:
    return {
        "amount_subtotal": total,
        "amount_total": total,
        "custom_fields": [],
        "custom_text": unused("after_submit shipping_address submit terms_of_service_acceptance"),
        "discounts": [],
        "livemode": False,
        "mode": "subscription",
        "payment_method_types": ["card"],
        "payment_status": "unpaid",
        "shipping_options": [],
        "status": "open",
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
        "ui_mode": "hosted_page",
    }


def _offered_price(account: Account, line_item: Object) -> Object:
    """Raises RequestRefused."""
    price = account.get("price", line_item["price"])
    if not price["active"]:
        raise RequestRefused("The price specified is inactive.", param="line_items")
    if price["recurring"]["usage_type"] == "metered" and "quantity" in line_item:
        raise RequestRefused("Quantity should not be specified where usage_type is `metered`.", param="line_items")
    return price


def _check_discount(account: Account, discount: Object) -> None:
    """Raises RequestRefused where there is no such coupon or promotion code."""
    if discount.get("coupon"):
        account.get("coupon", discount["coupon"])
    else:
        account.get("promotion_code", discount.get("promotion_code", ""))


def _discount_of_code(account: Account, code: str) -> Object:
    for promotion_code in account.find("promotion_code", active=True):
        if promotion_code["code"].lower() == code.lower():
            return {"promotion_code": promotion_code["id"]}
    raise RequestRefused("This promotion code is invalid.", param="promotion_code")


def _expire(account: Account, session: Object) -> None:
    session["status"], session["url"] = "expired", None
    account.emit("checkout.session.expired", session)


@timer("session_expires")
def expire_when_due(account: Account, session_id: str) -> None:
    session = account.get("checkout.session", session_id)
    if session["status"] == "open":
        _expire(account, session)
