"""`quotagate demo`: the story of a customer, with what Stripe says and what the gateway answers at each step."""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx

from devstack import token_mint
from devstack.child import StackError

CONVERGED_SECONDS = 5.0  # the promise
TIMEOUT_SECONDS = 20.0


class StoryBroken(StackError):
    """An answer is not the one that the story expects."""


@dataclass
class StoryTeller:
    """Plays one step after the other, and stops at the first one that goes otherwise."""

    facts: Mapping[str, Any]
    jwt_secret: str
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        admin = {"authorization": f"Bearer {self.facts['admin_token']}"}
        self.control = httpx.Client(base_url=self.facts["control"], headers=admin, timeout=TIMEOUT_SECONDS)
        self.stripe = httpx.Client(base_url=self.facts["stripe"], timeout=TIMEOUT_SECONDS, follow_redirects=False)
        self.gateway = httpx.Client(base_url=self.facts["gateway"], timeout=TIMEOUT_SECONDS)
        self.step = 0

    def tell(self) -> None:
        """Raises StoryBroken, StackError."""
        with self.control, self.stripe, self.gateway, self._borrowed_calendar():
            self._trial(f"trial-{secrets.token_hex(3)}")
            self._customer(f"story-{secrets.token_hex(3)}")
            self._settle()
        self.say("")
        self.say(f"All {self.step} steps went as the story says.")

    # The story

    def _trial(self, org: str) -> None:
        self._heading(f"{org} signs up for Starter with a trial of 14 days")
        self._sign_up(org, "starter", trial_days=14)
        self._expect(org, 200, status="trialing", plan="starter")
        self._heading("Its first calls are served, and counted")
        self._call(org, 200)
        self._heading("A server of its own reports the rest of the 10,000 calls as used: the next call is blocked at 0")
        left = self._entitlement(org)["meters"][0]["remaining"]
        self._report(org, left)
        self._call(org, 429)

    def _customer(self, org: str) -> None:
        self._heading(f"{org} buys Starter and uses all of it")
        self._sign_up(org, "starter")
        self._expect(org, 200, status="active", plan="starter")
        self._report(org, self._entitlement(org)["meters"][0]["remaining"])
        self._call(org, 429)

        self._heading("It upgrades to Growth: what is left of the month is paid at once, then it is in force")
        answer = self._post(f"/v1/organizations/{org}/subscription/switch", plan="growth")
        self._say_stripe(f"the subscription is {answer['status']}, pending: {answer['pending']}")
        self._expect(org, 200, status="active", plan="growth")
        self._say_stripe(self._newest_invoice(org))

        self._heading("It asks for Starter again: scheduled for the end of the month, and Growth stays until then")
        answer = self._post(f"/v1/organizations/{org}/subscription/switch", plan="starter")
        self._say_stripe(f"the change waits: {answer['when']}")
        self._expect(org, 200, status="active", plan="growth")
        self._heading("It changes its mind, and the schedule is released")
        self._post(f"/v1/organizations/{org}/subscription/stay")
        self._expect(org, 200, status="active", plan="growth")

        self._heading("It goes 1,234 calls beyond the 100,000 of Growth, which sells them")
        self._report(org, self._entitlement(org)["meters"][0]["remaining"] + 1234)
        self._call(org, 200)
        beyond = self._entitlement(org)["meters"][0]["overage"]
        self._say_stripe(f"{beyond:,} calls beyond the plan")

        self._heading("Its card is declined when the month is over: grace, the gateway goes on serving")
        self._card(org, "declines")
        self._move_to(datetime.fromisoformat(self._entitlement(org)["period"]["end"]).timestamp())
        self._move(hours=2)  # the renewal's invoice is a draft for one, and takes usage
        self._expect(org, 200, status="grace", plan="growth")
        self._heading("Stripe tries again for two weeks and gives up: the gateway asks for payment")
        self._move(hours=16 * 24)
        self._expect(org, 402, status="ended")
        self._heading("It gives a good card and pays: service is back, and the overage is on the invoice to the unit")
        self._card(org, "good")
        invoice = self._invoice(org, status="open")
        self._press(invoice["hosted_url"])
        self._expect(org, 200, status="active", plan="growth")
        self._billed(invoice["id"], beyond)
        self._heading("It cancels at once")
        self._post(f"/v1/organizations/{org}/subscription/cancel", when="now")
        self._expect(org, 402, status="ended")

    # What people do

    def _sign_up(self, org: str, plan: str, **order: Any) -> None:
        body = {"org": org, "plan": plan, "success_url": f"{self.facts['control']}/docs", **order}
        page = self._post("/v1/checkout-sessions", **body)["url"]
        self._call(org, 402)
        self._press(page, action="pay")
        self._say_stripe("checkout.session.completed")

    def _report(self, org: str, units: int) -> None:
        record = {"meter": "api_calls", "units": units, "idempotency_key": secrets.token_hex(8)}
        self._post(f"/v1/usage?org={org}", **record)

    def _card(self, org: str, behaviour: str) -> None:
        page = self._post(f"/v1/organizations/{org}/portal-sessions", return_url=self.facts["control"])["url"]
        self._press(page, action=f"card_{behaviour}")

    def _move(self, *, hours: int) -> None:
        now = self.stripe.get("/_double/clock").raise_for_status().json()["now"]
        self._move_to(now + hours * 3600)

    def _move_to(self, moment: float) -> None:
        """Moves Stripe's calendar; ours and that of Redis stay as they are."""
        answer = self.stripe.post("/_double/clock", json={"now": int(moment)}).raise_for_status()
        self._settle()
        self._say_stripe(f"the calendar is at {time.strftime('%Y-%m-%d %H:%M', time.gmtime(answer.json()['now']))}")

    @contextmanager
    def _borrowed_calendar(self) -> Iterator[None]:
        """Time passes only for the people of the story, and is what it was before when the story has ended."""
        answer = self.stripe.post("/_double/clock", json={"borrowed": True})
        if answer.status_code != httpx.codes.OK:
            raise StackError("the story needs the Stripe double: start the stack without STRIPE_SECRET_KEY")
        try:
            yield
        finally:
            with suppress(httpx.TransportError):  # a double that has ended has given it back
                self.stripe.post("/_double/clock", json={"borrowed": False})

    def _settle(self) -> None:
        """Waits until all events of Stripe are delivered and processed."""
        self.stripe.post("/_double/flush").raise_for_status()
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while self._get("/api/admin/webhooks?state=waiting&limit=1")["events"]:
            if time.monotonic() > deadline:
                raise StoryBroken("events of Stripe are waiting, and are not processed")
            time.sleep(0.05)

    def _press(self, page: str, **form: str) -> None:
        answer = self.stripe.post(page, data=form)
        if answer.status_code not in (200, 303):
            raise StoryBroken(f"the page answered {answer.status_code}", answer.text.splitlines()[-5:])

    # What is checked

    def _expect(self, org: str, code: int, **entitlement: str) -> None:
        """Waits for the entitlement and the gateway's answer, for the five seconds that are promised."""
        started = time.monotonic()
        while True:
            current = self._entitlement(org)
            answered = self._answer(org)
            if answered == code and all(current.get(name) == value for name, value in entitlement.items()):
                break
            if time.monotonic() - started > CONVERGED_SECONDS:
                actual = {name: current.get(name) for name in entitlement}
                raise StoryBroken(f"expected {code} and {entitlement}, but got {answered} and {actual}")
            time.sleep(0.05)
        seconds = time.monotonic() - started
        plan = f", plan {current['plan']}" if current.get("plan") else ""
        self.say(f"   gateway  {code}; entitlement {current['status']}{plan} ({seconds:.1f} s)")

    def _call(self, org: str, code: int) -> None:
        answered = self._answer(org)
        if answered != code:
            raise StoryBroken(f"the gateway answered {answered}, not {code}")
        self.say(f"   gateway  {code}")

    def _answer(self, org: str) -> int:
        token = token_mint.mint(org, self.jwt_secret, now=time.time(), ttl=timedelta(hours=1))
        return self.gateway.get("/anything", headers={"authorization": f"Bearer {token}"}).status_code

    def _entitlement(self, org: str) -> dict[str, Any]:
        answer = self.control.get(f"/v1/entitlements/{org}")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return {}
        entitlement: dict[str, Any] = answer.raise_for_status().json()
        return entitlement

    def _newest_invoice(self, org: str) -> str:
        invoice = self._invoice(org)
        amount = f"{invoice['total_minor'] / 100:,.2f} {invoice['currency']}"
        return f"invoice {invoice['number']}: {amount}, {invoice['status']} ({invoice['billing_reason']})"

    def _invoice(self, org: str, status: str | None = None) -> dict[str, Any]:
        """The newest one. Raises StoryBroken."""
        invoices: list[dict[str, Any]] = self._get(f"/v1/organizations/{org}/invoices")["invoices"]
        for invoice in invoices:
            if status in (None, invoice["status"]):
                return invoice
        raise StoryBroken(f"no invoice of {org} is {status}")

    def _billed(self, invoice_id: str, units: int) -> None:
        key = {"authorization": f"Bearer sk_test_{secrets.token_hex(8)}"}
        lines = self.stripe.get(f"/v1/invoices/{invoice_id}/lines?limit=100", headers=key).raise_for_status().json()
        for line in lines["data"]:
            if line["description"] == "Usage":
                if line["quantity"] != units:
                    raise StoryBroken(f"{line['quantity']} units are billed, and {units} were used beyond the plan")
                self._say_stripe(f"{units:,} calls beyond the plan: {line['amount'] / 100:,.2f} {line['currency']}")
                return
        raise StoryBroken("no overage is on the invoice")

    def _get(self, path: str) -> Any:
        return self.control.get(path).raise_for_status().json()

    def _post(self, path: str, **body: Any) -> Any:
        answer = self.control.post(path, json=body)
        if answer.is_error:
            raise StoryBroken(f"POST {path} was answered {answer.status_code}", answer.text.splitlines())
        return answer.json()

    def _heading(self, text: str) -> None:
        self.step += 1
        self.say("")
        self.say(f"{self.step:>2} {text}")

    def _say_stripe(self, text: str) -> None:
        self.say(f"   Stripe   {text}")
