"""Customers, their cards and their balance."""

from devstack.stripe.account import Account, Object, Occurrence, RequestRefused, unused
from devstack.stripe.dispatch import listing, route

CARDS = {
    "pm_card_visa": "good",
    "pm_card_mastercard": "good",
    "pm_card_chargeDeclined": "declines",
    "pm_card_chargeCustomerFail": "declines",
    "pm_card_authenticationRequired": "needs_action",
}
"""Stripe's test cards that the double knows, and how each behaves."""


def make(account: Account, params: Object) -> Object:
    customer = account.add(
        {
            "id": account.new_id("cus"),
            "object": "customer",
            "address": params.get("address"),
            "balance": params.get("balance", 0),
            "created": account.clock.now(),
            "currency": None,
            "default_source": None,
            "delinquent": False,
            "description": params.get("description"),
            "email": params.get("email"),
            "invoice_prefix": account.new_id("inv")[-8:].upper(),
            "invoice_settings": {
                "custom_fields": None,
                "default_payment_method": None,
                "footer": None,
                "rendering_options": None,
            },
            "livemode": False,
            "metadata": params.get("metadata") or {},
            "name": params.get("name"),
            "phone": params.get("phone"),
            "preferred_locales": [],
            "shipping": params.get("shipping"),
            "tax_exempt": "none",
            "test_clock": None,
        }
    )
    customer["invoice_settings"].update(params.get("invoice_settings") or {})
    if method := params.get("payment_method"):
        attach(account, customer, method)
    account.emit("customer.created", customer)
    return customer


def attach(account: Account, customer: Object, method: str) -> Object:
    """Gives the customer a card, which it pays with from now on."""
    behaviour = CARDS.get(method) or account.note(account.get("payment_method", method)["id"]).get("card", "good")
    payment_method = account.add(
        {
            "id": account.new_id("pm") if method in CARDS else method,
            "object": "payment_method",
            "allow_redisplay": "unspecified",
            "billing_details": {"address": None, "email": None, "name": None, "phone": None, "tax_id": None},
            "card": {
                "brand": "visa",
                "country": "US",
                "display_brand": "visa",
                "exp_month": 12,
                "exp_year": 2034,
                "fingerprint": "double",
                "funding": "credit",
                "last4": "4242",
                "networks": {"available": ["visa"], "preferred": None},
                "three_d_secure_usage": {"supported": True},
                **unused("checks generated_from regulated_status wallet"),
            },
            "created": account.clock.now(),
            "customer": customer["id"],
            "customer_account": None,
            "livemode": False,
            "metadata": {},
            "type": "card",
        }
    )
    account.note(payment_method["id"])["card"] = behaviour
    customer["invoice_settings"]["default_payment_method"] = payment_method["id"]
    account.emit("payment_method.attached", payment_method)
    return payment_method


def set_card(account: Account, customer_id: str, behaviour: str) -> None:
    """Gives the customer a card that behaves so: good, declines or needs_action."""
    customer = account.get("customer", customer_id)
    method = next(name for name, kind in CARDS.items() if kind == behaviour)
    attach(account, customer, method)
    account.emit("customer.updated", customer)


def card_of(account: Account, customer: Object, subscription: Object | None = None) -> str:
    """How the card behaves that is charged: good, declines, needs_action, or none."""
    method = method_of(customer, subscription)
    return str(account.note(method).get("card", "good")) if method else "none"


def method_of(customer: Object, subscription: Object | None) -> str | None:
    own: str | None = (subscription or {}).get("default_payment_method")
    default: str | None = customer["invoice_settings"]["default_payment_method"]
    return own or default


def balance_in(account: Account, customer: Object, currency: str) -> int:
    """What is added to the customer's next invoice in that currency; below zero, it is credit. 0 for a customer that is
    deleted."""
    if customer.get("currency") in (None, currency):
        return int(customer.get("balance", 0))
    transactions = account.find("customer_balance_transaction", customer=customer["id"], currency=currency)
    return sum(each["amount"] for each in transactions)


def change_balance(account: Account, customer: Object, amount: int, currency: str, **fields: object) -> Object:
    """`amount`: negative is credit. The customer's `balance` is the one in its own currency; each other currency has a
    balance of its own (https://docs.stripe.com/invoicing/multi-currency-customers)."""
    customer["currency"] = customer["currency"] or currency
    ending = balance_in(account, customer, currency) + amount
    if customer["currency"] == currency:
        customer["balance"] = ending
    return account.add(
        {
            "id": account.new_id("cbtxn"),
            "object": "customer_balance_transaction",
            "amount": amount,
            "checkout_session": None,
            "created": account.clock.now(),
            "credit_note": None,
            "currency": currency,
            "customer": customer["id"],
            "customer_account": None,
            "description": None,
            "ending_balance": ending,
            "invoice": None,
            "livemode": False,
            "metadata": {},
            "type": "adjustment",
            **fields,
        }
    )


def alive(account: Account, customer_id: str) -> Object:
    """The customer. Raises RequestRefused for one that is deleted."""
    customer = account.get("customer", customer_id)
    if customer.get("deleted"):
        raise RequestRefused(
            f"No such customer: '{customer_id}'", status=404, code="resource_missing", param="customer"
        )
    return customer


@route("POST", "/v1/customers", "CustomerCreateParams")
def create(account: Account, params: Object) -> Object:
    return make(account, params)


@route("GET", "/v1/customers", "CustomerListParams")
def list_(account: Account, params: Object) -> Object:
    customers = account.find("customer", email=params.get("email"))
    return listing((each for each in customers if not each.get("deleted")), params, "/v1/customers")


@route("GET", "/v1/customers/{customer_id}", "CustomerRetrieveParams")
def retrieve(account: Account, params: Object, customer_id: str) -> Object:
    return account.get("customer", customer_id)


@route("POST", "/v1/customers/{customer_id}", "CustomerUpdateParams")
def update(account: Account, params: Object, customer_id: str) -> Object:
    customer = alive(account, customer_id)
    previous = {name: customer[name] for name in params if name in customer}
    settings = params.pop("invoice_settings", {})
    customer["invoice_settings"].update(settings)
    customer["metadata"].update(params.pop("metadata", None) or {})
    customer.update({name: value for name, value in params.items() if name in customer})
    account.emit("customer.updated", customer, previous)
    return customer


@route("DELETE", "/v1/customers/{customer_id}")
def delete(account: Account, params: Object, customer_id: str) -> Object:
    customer = alive(account, customer_id)
    account.follow_up(Occurrence.CUSTOMER_DELETED, customer)
    account.emit("customer.deleted", customer)
    deleted = {"id": customer_id, "object": "customer", "deleted": True}
    account.objects["customer"][customer_id] = deleted
    return deleted


@route("POST", "/v1/customers/{customer_id}/balance_transactions", "CustomerBalanceTransactionCreateParams")
def create_balance_transaction(account: Account, params: Object, customer_id: str) -> Object:
    customer = alive(account, customer_id)
    transaction = change_balance(
        account,
        customer,
        params["amount"],
        params["currency"],
        description=params.get("description"),
        metadata=params.get("metadata") or {},
    )
    account.emit("customer.updated", customer)
    return transaction


@route("GET", "/v1/customers/{customer_id}/balance_transactions", "CustomerListBalanceTransactionsParams")
def list_balance_transactions(account: Account, params: Object, customer_id: str) -> Object:
    transactions = account.find("customer_balance_transaction", customer=customer_id)
    return listing(transactions, params, f"/v1/customers/{customer_id}/balance_transactions")


@route("POST", "/v1/payment_methods/{method}/attach", "PaymentMethodAttachParams")
def attach_method(account: Account, params: Object, method: str) -> Object:
    customer = alive(account, params["customer"])
    before = customer["invoice_settings"]["default_payment_method"]
    payment_method = attach(account, customer, method)
    if (
        before is not None
    ):  # attaching alone makes no default; the double makes a first card one, as Checkout's page does
        customer["invoice_settings"]["default_payment_method"] = before
    return payment_method


@route("GET", "/v1/payment_methods", "PaymentMethodListParams")
def list_methods(account: Account, params: Object) -> Object:
    payment_methods = account.find("payment_method", customer=params.get("customer"), type=params.get("type"))
    return listing(payment_methods, params, "/v1/payment_methods")
