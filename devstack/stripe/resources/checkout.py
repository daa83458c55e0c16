"""Checkout sessions. Customer and subscription come to be when the page's "pay" is pressed, not before."""

from devstack.stripe.account import Account, Object, RequestRefused, timer, unused
from devstack.stripe.dispatch import listing, route
from devstack.stripe.resources import amounts, customers, subscriptions

OPEN_SECONDS = 24 * 3600


@route("POST", "/v1/checkout/sessions", "checkout.SessionCreateParams")
def create(account: Account, params: Object) -> Object:
    if params.get("mode") != "subscription":
        raise RequestRefused("Here sessions are for subscriptions.", param="mode")
    if not params.get("success_url"):
        raise RequestRefused("Missing required param: success_url.", code="parameter_missing", param="success_url")
    if params.get("customer") and params.get("customer_email"):
        raise RequestRefused(
            "You may only specify one of these parameters: customer, customer_email.", param="customer"
        )
    if params.get("allow_promotion_codes") and params.get("discounts"):
        raise RequestRefused(
            "You may only specify one of these parameters: allow_promotion_codes, discounts.", param="discounts"
        )
    if params.get("customer"):
        customers.alive(account, params["customer"])
    for each in params.get("line_items") or []:
        price = account.get("price", each["price"])
        if not price["active"]:
            raise RequestRefused("The price specified is inactive.", param="line_items")
        if price["recurring"]["usage_type"] == "metered" and "quantity" in each:
            raise RequestRefused("Quantity should not be specified where usage_type is `metered`.", param="line_items")
    for each in params.get("discounts") or []:
        if each.get("coupon"):
            account.get("coupon", each["coupon"])
        else:
            account.get("promotion_code", each.get("promotion_code", ""))
    now, session_id = account.clock.now(), account.new_id("cs_test")
    trial = (params.get("subscription_data") or {}).get("trial_period_days")
    total = 0 if trial else _total(account, params)
    session = account.add(
        {
            "id": session_id,
            "object": "checkout.session",
            "allow_promotion_codes": params.get("allow_promotion_codes"),
            "amount_subtotal": total,
            "amount_total": total,
            "automatic_tax": {
                "enabled": False,
                **unused("liability provider status"),
                **(params.get("automatic_tax") or {}),
            },
            "cancel_url": params.get("cancel_url"),
            "client_reference_id": params.get("client_reference_id"),
            "created": now,
            "currency": account.get("price", params["line_items"][0]["price"])["currency"],
            "customer": params.get("customer"),
            "customer_details": None,
            "customer_email": params.get("customer_email"),
            "discounts": [],
            "expires_at": params.get("expires_at", now + OPEN_SECONDS),
            "invoice": None,
            "livemode": False,
            "metadata": params.get("metadata") or {},
            "mode": "subscription",
            "payment_method_collection": params.get("payment_method_collection", "always"),
            "payment_status": "unpaid",
            "status": "open",
            "subscription": None,
            "success_url": params["success_url"],
            "tax_id_collection": {"enabled": False, "required": "never", **(params.get("tax_id_collection") or {})},
            "ui_mode": "hosted_page",
            "url": f"{account.settings.get('url', '')}/checkout/{session_id}",
            "custom_fields": [],
            "custom_text": unused("after_submit shipping_address submit terms_of_service_acceptance"),
            "payment_method_types": ["card"],
            "shipping_options": [],
            "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
            **unused(
                "adaptive_pricing after_expiration allowed_payment_method_types billing_address_collection"
                " client_secret collected_information consent consent_collection currency_conversion customer_account"
                " customer_creation integration_identifier invoice_creation locale managed_payments origin_context"
                " payment_intent payment_link payment_method_configuration_details payment_method_options permissions"
                " recovered_from saved_payment_method_options setup_intent shipping_address_collection shipping_cost"
                " submit_type wallet_options"
            ),
        }
    )
    account.note(session_id)["params"] = params
    account.at(session["expires_at"], "session_expires", session_id)
    return session


@route("GET", "/v1/checkout/sessions", "checkout.SessionListParams")
def list_(account: Account, params: Object) -> Object:
    found = account.find(
        "checkout.session",
        customer=params.get("customer"),
        subscription=params.get("subscription"),
        status=params.get("status"),
    )
    return listing(found, params, "/v1/checkout/sessions")


@route("GET", "/v1/checkout/sessions/{session}", "checkout.SessionRetrieveParams")
def retrieve(account: Account, params: Object, session: str) -> Object:
    return account.get("checkout.session", session)


@route("POST", "/v1/checkout/sessions/{session}/expire", "checkout.SessionExpireParams")
def expire(account: Account, params: Object, session: str) -> Object:
    found = account.get("checkout.session", session)
    if found["status"] != "open":
        raise RequestRefused("Only Checkout Sessions with a status of open can be expired.", param="session")
    _expire(account, found)
    return found


def complete(account: Account, session_id: str, method: str = "pm_card_visa", code: str | None = None) -> Object:
    """What "pay" does. Raises RequestRefused where the card or the promotion code is."""
    session = account.get("checkout.session", session_id)
    if session["status"] != "open":
        raise RequestRefused("This Checkout Session is no longer active.", param="session")
    params = account.note(session_id)["params"]
    data = params.get("subscription_data") or {}
    discounts = params.get("discounts") or ([_coded(account, code)] if code else [])
    if customers.CARDS.get(method) != "good" and not (
        data.get("trial_period_days") and params.get("payment_method_collection") == "if_required"
    ):
        raise RequestRefused("Your card was declined.", status=402, kind="card_error", code="card_declined")
    customer_id = session["customer"]
    if customer_id is None:
        made = customers.make(account, {"email": session["customer_email"], "name": None})
        customer_id = session["customer"] = made["id"]
    if method:
        customers.attach(account, account.get("customer", customer_id), method)
    subscription = subscriptions.make(
        account,
        {
            **{name: data[name] for name in ("metadata", "trial_period_days", "trial_settings") if name in data},
            "customer": customer_id,
            "items": [
                {name: each[name] for name in ("price", "quantity") if name in each} for each in params["line_items"]
            ],
            "discounts": discounts,
            "automatic_tax": params.get("automatic_tax") or {"enabled": False},
            "payment_behavior": "allow_incomplete",
        },
    )
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


def _coded(account: Account, code: str) -> Object:
    for each in account.find("promotion_code", active=True):
        if each["code"].lower() == code.lower():
            return {"promotion_code": each["id"]}
    raise RequestRefused("This promotion code is invalid.", param="promotion_code")


def _total(account: Account, params: Object) -> int:
    return sum(
        amounts.amount_of(price, each.get("quantity", 1))
        for each in params.get("line_items") or []
        if (price := account.get("price", each["price"]))["recurring"]["usage_type"] == "licensed"
    )


def _expire(account: Account, session: Object) -> None:
    session["status"], session["url"] = "expired", None
    account.emit("checkout.session.expired", session)


@timer("session_expires")
def _session_expires(account: Account, session_id: str) -> None:
    session = account.get("checkout.session", session_id)
    if session["status"] == "open":
        _expire(account, session)
