"""A customer's balance at the double, in each currency. https://docs.stripe.com/invoicing/multi-currency-customers"""

from typing import Any

from stripe._v1_services import V1Services

from devstack.stripe.account import Account
from tests.devstack.stripe.selling import items_of, price, subscribed


async def test_credit_in_another_currency_pays_no_invoice_and_stays(client: V1Services, account: Account) -> None:
    subscription = await subscribed(client, await price(client))

    async def give(amount: int, currency: str) -> Any:
        credit: Any = {"amount": -amount, "currency": currency}
        return await client.customers.balance_transactions.create_async(subscription.customer, credit)

    assert (await give(500, "eur")).ending_balance == -500
    assert (await give(300, "usd")).ending_balance == -300
    assert (await give(200, "eur")).ending_balance == -700, "each currency has a balance of its own"
    customer = await client.customers.retrieve_async(subscription.customer)
    assert (customer.currency, customer.balance) == ("usd", -300)
    account.advance_to(items_of(subscription)[0]["current_period_end"] + 3601)
    (newest,) = (await client.invoices.list_async({"subscription": subscription.id, "limit": 1})).data
    assert (newest.currency, newest.total, newest.amount_due) == ("usd", 1000, 700)
    assert (newest.starting_balance, newest.ending_balance) == (-300, 0)
    assert (await client.customers.retrieve_async(subscription.customer)).balance == 0
    assert (await give(1, "eur")).ending_balance == -701
