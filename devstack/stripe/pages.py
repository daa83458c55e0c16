"""The pages that customers see: checkout, portal, an invoice. They are plain forms, so curl can press their buttons."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from devstack.stripe.account import Account, Object, RequestRefused
from devstack.stripe.resources import checkout, customers, invoices, schedules, subscriptions

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=select_autoescape(), trim_blocks=True
)

SEE_OTHER = 303


def routes(account: Account) -> list[Route]:
    async def session(request: Request) -> Response:
        return await _checkout(account, request)

    async def portal(request: Request) -> Response:
        return await _portal(account, request)

    async def invoice(request: Request) -> Response:
        return await _invoice(account, request)

    return [
        Route("/checkout/{session}", session, methods=["GET", "POST"]),
        Route("/portal/{session}", portal, methods=["GET", "POST"]),
        Route("/invoice/{invoice}", invoice, methods=["GET", "POST"]),
    ]


async def _checkout(account: Account, request: Request) -> Response:
    session_id = request.path_params["session"]
    session = account.objects.get("checkout.session", {}).get(session_id)
    if session is None:
        return _page("page.html", 404, title="No such session")
    error = None
    if request.method == "POST":
        form = await request.form()
        method = "pm_card_visa" if form.get("action") == "pay" else "pm_card_chargeDeclined"
        try:
            checkout.complete(account, session_id, method, str(form.get("code") or "") or None)
        except RequestRefused as e:
            error = str(e)
        else:
            url = session["success_url"].replace("{CHECKOUT_SESSION_ID}", session_id)
            return RedirectResponse(url, SEE_OTHER)
    params = account.note(session_id)["params"]
    lines = [
        {
            "name": account.get("product", price["product"])["name"],
            "quantity": each.get("quantity", "as used"),
            "price": _price(price),
        }
        for each in params["line_items"]
        for price in [account.get("price", each["price"])]
    ]
    trial_days = (params.get("subscription_data") or {}).get("trial_period_days")
    status = 402 if error else 200
    return _page(
        "checkout.html", status, title="Checkout", session=session, lines=lines, trial_days=trial_days, error=error
    )


async def _portal(account: Account, request: Request) -> Response:
    session = account.objects.get("billing_portal.session", {}).get(request.path_params["session"])
    if session is None:
        return _page("page.html", 404, title="No such session")
    customer, error = account.get("customer", session["customer"]), None
    if request.method == "POST":
        form = {name: str(value) for name, value in (await request.form()).items()}
        try:
            _ACTIONS[form.get("action", "")](account, customer, form)
            account.run_due()
            return RedirectResponse(request.url.path, SEE_OTHER)
        except KeyError:
            error = "There is no such button."
        except RequestRefused as e:
            error = str(e)
    now = account.clock.now()
    return _page(
        "portal.html",
        402 if error else 200,
        title="Your subscription",
        error=error,
        now=_time(now),
        return_url=session["return_url"],
        subscriptions=[
            {
                "id": each["id"],
                "status": each["status"],
                "name": account.get("product", each["items"]["data"][0]["price"]["product"])["name"],
                "until": _time(each["items"]["data"][0]["current_period_end"]),
                "cancel_at": each["cancel_at"],
            }
            for each in account.find("subscription", customer=customer["id"])
        ],
        prices=[
            {
                "id": each["id"],
                "name": f"{account.get('product', each['product'])['name']}, {_price(each)}",
            }
            for each in account.find("price", active=True)
            if each["lookup_key"] and each["recurring"] and each["recurring"]["usage_type"] == "licensed"
        ],
        invoices=[
            {**each, "amount": f"{each['total'] / 100:.2f} {each['currency']}"}
            for each in account.find("invoice", customer=customer["id"])
        ],
    )


async def _invoice(account: Account, request: Request) -> Response:
    invoice = account.objects.get("invoice", {}).get(request.path_params["invoice"])
    if invoice is None:
        return _page("page.html", 404, title="No such invoice")
    error, pays = None, request.method == "POST" and invoice["status"] == "open"
    if pays and not invoices.attempt(account, invoice, by_hand=True):
        error = "Your card was declined."
    amount = f"{invoice['total'] / 100:.2f} {invoice['currency']}"
    title = f"Invoice {invoice['number'] or invoice['id']}: {amount}, {invoice['status']}"
    return _page("page.html", 402 if error else 200, title=title, error=error)


def _subscription(account: Account, customer: Object, form: dict[str, str]) -> Object:
    """The customer's subscription that the form names. Raises RequestRefused."""
    subscription = account.get("subscription", form.get("subscription", ""))
    if subscription["customer"] != customer["id"]:
        raise RequestRefused("No such subscription.", status=404)
    return subscription


def _cancel(account: Account, customer: Object, form: dict[str, str]) -> None:
    subscriptions.update(account, {"cancel_at_period_end": True}, _subscription(account, customer, form)["id"])


def _keep(account: Account, customer: Object, form: dict[str, str]) -> None:
    subscriptions.update(account, {"cancel_at_period_end": False}, _subscription(account, customer, form)["id"])


def _cancel_now(account: Account, customer: Object, form: dict[str, str]) -> None:
    subscriptions.cancel(account, {}, _subscription(account, customer, form)["id"])


def _items_on_plan(account: Account, subscription: Object, price_id: str) -> list[Object]:
    """The changes that put the subscription on another plan: the plan's item, and the items of its overage."""
    price = account.get("price", price_id)
    overage = [
        each["id"]
        for each in account.find("price", active=True, product=price["product"])
        if each["recurring"]["usage_type"] == "metered"
        and each["recurring"]["interval"] == price["recurring"]["interval"]
        and each["lookup_key"]
    ]
    changes: list[Object] = []
    for item in subscription["items"]["data"]:
        if "quantity" in item:
            changes.append({"id": item["id"], "price": price_id, "quantity": item["quantity"]})
        elif item["price"]["id"] in overage:
            overage.remove(item["price"]["id"])
        else:
            changes.append({"id": item["id"], "deleted": True})
    return [*changes, *({"price": each} for each in overage)]


def _change(account: Account, customer: Object, form: dict[str, str]) -> None:
    subscription = _subscription(account, customer, form)
    subscriptions.update(
        account,
        {
            "items": _items_on_plan(account, subscription, form.get("price", "")),
            "proration_behavior": "always_invoice",
            "payment_behavior": "pending_if_incomplete",
        },
        subscription["id"],
    )
    if subscription["pending_update"] is not None:
        raise RequestRefused("Your card was declined; the change waits for its payment.", status=402)


def _change_later(account: Account, customer: Object, form: dict[str, str]) -> None:
    subscription = _subscription(account, customer, form)
    schedule = (
        account.get("subscription_schedule", subscription["schedule"])
        if subscription["schedule"]
        else schedules.create(account, {"from_subscription": subscription["id"]})
    )
    items = subscription["items"]["data"]
    plan_item = next(item for item in items if "quantity" in item)
    changes = _items_on_plan(account, subscription, form.get("price", ""))
    phases = [
        {
            "start_date": schedule["phases"][0]["start_date"],
            "end_date": plan_item["current_period_end"],
            "items": [_phase_item(item["price"]["id"], item) for item in items],
        },
        {"items": [_phase_item(change.get("price"), change) for change in changes if not change.get("deleted")]},
    ]
    schedules.update(account, {"phases": phases, "end_behavior": "release"}, schedule["id"])


def _phase_item(price_id: str | None, item: Object) -> Object:
    return {"price": price_id, **({"quantity": item["quantity"]} if "quantity" in item else {})}


def _card_good(account: Account, customer: Object, form: dict[str, str]) -> None:
    customers.set_card(account, customer["id"], "good")


def _card_declines(account: Account, customer: Object, form: dict[str, str]) -> None:
    customers.set_card(account, customer["id"], "declines")


def _pay(account: Account, customer: Object, form: dict[str, str]) -> None:
    invoice = account.get("invoice", form.get("invoice", ""))
    if invoice["customer"] != customer["id"]:
        raise RequestRefused("No such invoice.", status=404)
    if not invoices.attempt(account, invoice, by_hand=True):
        raise RequestRefused("Your card was declined.", status=402)


def _day(account: Account, customer: Object, form: dict[str, str]) -> None:
    account.advance_to(account.clock.now() + 86_400)


def _period(account: Account, customer: Object, form: dict[str, str]) -> None:
    ends = [
        each["items"]["data"][0]["current_period_end"]
        for each in account.find("subscription", customer=customer["id"])
        if each["status"] != "canceled"
    ]
    account.advance_to(min(ends, default=account.clock.now()) + 2 * 3600)


_ACTIONS: dict[str, Callable[[Account, Object, dict[str, str]], None]] = {
    "cancel": _cancel,
    "cancel_now": _cancel_now,
    "keep": _keep,
    "change": _change,
    "change_later": _change_later,
    "card_good": _card_good,
    "card_declines": _card_declines,
    "pay": _pay,
    "day": _day,
    "period": _period,
}


def _price(price: Object) -> str:
    amount = float(price["unit_amount_decimal"] or 0) / 100
    each = " a unit beyond the plan" if price["recurring"]["usage_type"] == "metered" else ""
    return f"{amount:g} {price['currency']}{each} a {price['recurring']['interval']}"


def _time(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _page(name: str, status: int, **values: Any) -> Response:
    return HTMLResponse(_templates.get_template(name).render(**values), status)
