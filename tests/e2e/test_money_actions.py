"""Money and subscriptions: what is done in a browser is seen at Stripe, on the next invoice, and at the gateway."""

from playwright.sync_api import Page, expect

from tests.browser.running import browser
from tests.e2e.acting import StripeDouble, Subscriber, act, call, confirm, page, scripts, show_effect, undo
from tests.e2e.running import Command, Up, wait_for

__all__ = ["browser", "page", "scripts"]

PRICE = 4900  # of Starter, a month
HOUR = 3600
WEBHOOKS = "/console/webhooks"


def test_credit_refund_and_coupon_are_seen_at_stripe_and_on_the_next_invoice(
    stack: Up, page: Page, quotagate: Command
) -> None:
    stripe = StripeDouble(stack)
    with stripe.borrowed_calendar():
        payer = Subscriber(stack, quotagate).signed_up()
        org, customer = payer.org, stripe.customer_of(payer.org)

        def balance() -> int:
            return int(stripe.get(f"customers/{customer}")["balance"])

        act(page, stack, org, "credit", amount="15", currency="usd")
        assert balance() == -1500
        undo(page)
        assert balance() == 0
        act(page, stack, org, "credit", amount="7.00", currency="usd")
        assert wait_for(lambda: payer.entries() == [("balance", -1500), ("balance", 700), ("balance", 1500)])

        assert wait_for(lambda: len(payer.invoices()) == 1)
        [invoice] = payer.invoices()
        act(page, stack, org, "refund", amount="9.0", invoice=invoice["id"], to="card")
        assert [each["amount"] for each in stripe.get("credit_notes", invoice=invoice["id"])["data"]] == [900]
        assert wait_for(lambda: ("credit_note", 900) in payer.entries())

        made = payer.admin.post("/v1/coupons", json={"id": f"half-{org}", "percent_off": 50, "duration": "forever"})
        assert made.status_code == 201
        act(page, stack, org, "discount", coupon=f"half-{org}")
        undo(page)
        assert stripe.subscription_of(customer)["discounts"] == []
        act(page, stack, org, "discount", coupon=f"half-{org}")
        [subscription] = stripe.get("subscriptions", customer=customer)["data"]
        assert len(subscription["discounts"]) == 1

        ends = subscription["items"]["data"][0]["current_period_end"]
        stripe.move_to(ends)
        stripe.move_to(ends + 2 * HOUR)
        assert wait_for(lambda: len(payer.invoices()) == 2)
        renewal = payer.invoices()[0]
        assert (renewal["total_minor"], renewal["amount_paid_minor"]) == (PRICE // 2, PRICE // 2 - 700)
        assert balance() == 0, "the credit is used up"


def test_a_subscription_is_cancelled_switched_and_ended(stack: Up, page: Page, quotagate: Command) -> None:
    payer = Subscriber(stack, quotagate).signed_up()
    act(page, stack, payer.org, "cancel", when="period_end")
    undo(page)
    assert "10000" in payer.quota()
    act(page, stack, payer.org, "switch", plan="growth", when="now")
    assert wait_for(lambda: payer.quota().startswith("200") and (payer.allowance() or 0) > 10_000)
    act(page, stack, payer.org, "cancel", when="now")
    assert wait_for(lambda: payer.quota().startswith("402"))


def test_what_no_webhook_told_is_found_by_a_resync_and_the_gateway_refuses(
    stack: Up, page: Page, quotagate: Command
) -> None:
    stripe, payer = StripeDouble(stack), Subscriber(stack, quotagate).signed_up()
    subscription = stripe.subscription_of(stripe.customer_of(payer.org))["id"]
    stripe.settle()  # a look for what was told before would find the end, too
    with stripe.silent():
        stripe.cancel(subscription)
    assert call(stack, payer.token) == 200
    effect = show_effect(page, stack, payer.org, "resync")
    expect(effect.get_by_role("row").filter(has_text=f"Subscription {subscription}")).to_contain_text("canceled")
    confirm(page)
    expect(page.locator("#action")).to_contain_text("Done")
    assert wait_for(lambda: call(stack, payer.token) == 402)


def test_webhooks_that_were_given_up_are_replayed_by_clicking_one_some_and_all(
    stack: Up, page: Page, quotagate: Command
) -> None:
    stripe, console = StripeDouble(stack), stack.ready["control"]
    one, some, rest = (Subscriber(stack, quotagate) for _ in range(3))
    with stripe.refusing("^/v1/subscriptions"):
        for payer in (one, some, rest):
            payer.pay()
        stripe.settle()
    assert [call(stack, payer.token) for payer in (one, some, rest)] == [402, 402, 402]

    def dead(payer: Subscriber) -> list[str]:
        """Events of its customer that were given up."""
        events = payer.admin.get("/api/admin/webhooks?state=dead&limit=1000").json()["events"]
        return [each["id"] for each in events if each["customer"] == customers[payer]]

    customers = {payer: stripe.customer_of(payer.org) for payer in (one, some, rest)}
    assert all(map(dead, customers))
    page.goto(f"{console}{WEBHOOKS}/{dead(one)[0]}")
    page.get_by_role("main").get_by_role("button", name="Replay").click()
    expect(page.get_by_role("status").filter(has_text="Processed again: 1.")).to_be_visible()
    assert wait_for(lambda: call(stack, one.token) == 200)
    assert [call(stack, payer.token) for payer in (some, rest)] == [402, 402]

    page.goto(f"{console}{WEBHOOKS}?state=dead")
    chosen = dead(some)[:2]
    for event in chosen:
        page.get_by_label(f"Choose {event}").check()
    page.get_by_role("button", name="Replay those that are chosen").click()
    expect(page.get_by_role("status").filter(has_text=f"Processed again: {len(chosen)}.")).to_be_visible()
    assert wait_for(lambda: call(stack, some.token) == 200)
    assert call(stack, rest.token) == 402

    page.goto(f"{console}{WEBHOOKS}")
    page.get_by_role("link", name="Replay dead letters").click()
    page.get_by_role("button", name="Replay all of them").click()
    expect(page.get_by_role("status").filter(has_text="Processed again")).to_be_visible()
    assert wait_for(lambda: call(stack, rest.token) == 200)
    stripe.settle()
    assert not any(map(dead, customers))
