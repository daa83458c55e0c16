"""A draft becomes final: it gets its usage, its number and its amount due."""

from devstack.stripe.account import Account, Object
from devstack.stripe.resources import amounts, customers, meters
from devstack.stripe.resources.invoices.drafts import add_up
from devstack.stripe.resources.invoices.lines import line
from devstack.stripe.resources.invoices.lookups import Usage, subscription_of
from devstack.stripe.resources.invoices.totals import balance_change

DAY = 86_400


def finalize(account: Account, invoice: Object) -> None:
    """Does nothing where it is final already."""
    if invoice["status"] != "draft":
        return
    _add_usage(account, invoice)
    add_up(account, invoice)
    now, customer = account.clock.now(), account.get("customer", invoice["customer"])
    invoice["number"] = _next_number(account, customer)
    _apply_balance(account, invoice, customer)
    invoice["status"], invoice["effective_at"] = "open", now
    invoice["status_transitions"]["finalized_at"] = now
    invoice["hosted_invoice_url"] = f"{account.settings.get('url', '')}/invoice/{invoice['id']}"
    invoice["invoice_pdf"] = f"{invoice['hosted_invoice_url']}/pdf"
    subscription = subscription_of(account, invoice)
    if invoice["collection_method"] == "send_invoice" and subscription is not None:
        invoice["due_date"] = now + subscription["days_until_due"] * DAY
        account.at(invoice["due_date"], "due", invoice["id"])
    account.emit("invoice.finalized", invoice)
    if invoice["due_date"] is not None:
        account.emit("invoice.sent", invoice)


def _add_usage(account: Account, invoice: Object) -> None:
    subscription = subscription_of(account, invoice)
    if subscription is None:
        return
    note = account.note(invoice["id"])
    for usage in (Usage(*each) for each in note.get("metered", [])):
        price = account.get("price", usage.price)
        meter = price["recurring"]["meter"]
        units = max(0, meters.usage(account, meter, invoice["customer"], usage.start, usage.end))
        amount, period = amounts.amount_of(price, units), (usage.start, usage.end)
        used = line(account, subscription, price, amount, units, period, "Usage", item=usage.item)
        used["invoice"] = invoice["id"]
        invoice["lines"]["data"].append(used)
    note["metered"] = []


def _next_number(account: Account, customer: Object) -> str:
    numbers = account.note("numbers")
    numbers["invoice"] = numbers.get("invoice", 0) + 1
    return f"{customer.get('invoice_prefix', 'GONE')}-{numbers['invoice']:04d}"


def _apply_balance(account: Account, invoice: Object, customer: Object) -> None:
    total, currency = invoice["total"], invoice["currency"]
    balance = customers.balance_in(account, customer, currency)
    change = balance_change(total, balance)
    if change:
        fields = {"type": "applied_to_invoice", "invoice": invoice["id"]}
        customers.change_balance(account, customer, change, currency, **fields)
    invoice["starting_balance"] = balance
    invoice["ending_balance"] = customers.balance_in(account, customer, currency)
    if total >= 0:
        invoice["amount_due"] = invoice["amount_remaining"] = total - change
