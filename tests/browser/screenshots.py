"""`python -m tests.browser.screenshots FOLDER [DATA_DIR]`: pictures of each page, of an embedded stack with the demo
history: one of its own, or the one that runs in DATA_DIR."""

import base64
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal

import httpx
from playwright.sync_api import Page, sync_playwright

from tests.browser.running import NEEDED, chromium

WIDE: Final = (1280, 800)
NARROW: Final = (390, 844)
START_SECONDS: Final = 600
SETTLE_MS: Final = 800  # scripts write relative times, and live numbers come
QUALITY: Final = 82


INTRODUCTION: Final = """# The console

Pictures of each page, made by `make screenshots` of an embedded stack with a year of demo history
(`quotagate up --demo-history`). Nothing in them is real.

`quotagate up` prints a link that opens the console signed in; `quotagate console-link` makes another one. Each page
shows what an endpoint of the control API answers: the link "JSON" at its foot leads there. It works without JavaScript,
with the keyboard alone, and on a telephone.
"""


@dataclass(frozen=True)
class Shot:
    name: str
    caption: str
    path: str
    scheme: Literal["light", "dark"] = "light"
    size: tuple[int, int] = WIDE


def shots(org: str) -> Sequence[Shot]:
    """Those whose page is there are taken."""
    of_one = f"/console/organizations/{org}"
    return (
        Shot("overview", "Overview: what needs somebody, live", "/console"),
        Shot("overview-dark", "The same, where the system is set to dark", "/console", "dark"),
        Shot("overview-phone", "The same on a telephone", "/console", size=NARROW),
        Shot("organizations", "Organizations: search, filters, usage, MRR", "/console/organizations"),
        Shot("organizations-phone", "The same on a telephone", "/console/organizations", size=NARROW),
        Shot("organization", "One organization", of_one),
        Shot("organization-dark", "The same, dark", of_one, "dark"),
        *(
            Shot(f"organization-{tab}", f"One organization: {tab}", f"{of_one}/{tab}")
            for tab in ("usage", "entitlement", "billing", "people", "access", "incidents", "journal")
        ),
        Shot("action", "An action: its effect is shown before it is done", f"{of_one}/actions/suspend?show=effect"),
        Shot("approvals", "Approvals: what needs a second person", "/console/approvals"),
        Shot("incidents", "Incidents, live", "/console/incidents"),
        Shot("webhooks", "Webhooks: payloads, attempts, replay", "/console/webhooks"),
        Shot("webhooks-notifications", "Notifications to the vendor's system", "/console/webhooks/notifications"),
        Shot("journal", "Journal: who changed what", "/console/journal"),
        Shot("decisions", "Decisions: why a request was refused", "/console/decisions"),
        Shot(
            "decisions-suppose",
            "A request that nobody has sent: what would become of it, rule by rule",
            f"/console/decisions/suppose?org={org}&charge=api_calls:1",
        ),
        Shot("people", "People: what is stored of a person, exported or erased", "/console/people"),
        Shot("bulk-actions", "Actions for many organizations", "/console/bulk-actions"),
        Shot("analytics", "Analytics", "/console/analytics"),
        Shot("analytics-dark", "The same, dark", "/console/analytics", "dark"),
        Shot("analytics-phone", "The same on a telephone", "/console/analytics", size=NARROW),
        *(
            Shot(f"analytics-{tab}", f"Analytics: {tab.replace('-', ' ')}", f"/console/analytics/{tab}")
            for tab in (
                "movements",
                "retention",
                "cohorts",
                "trials",
                "usage",
                "unit-economics",
                "quota-check",
                "subscriptions",
                "what-if",
            )
        ),
        Shot("account", "Your account: where you are signed in", "/console/account"),
    )


PORTAL: Final = (
    Shot("portal", "The customer's own portal: plan, usage, what is left and for how long", "/portal"),
    Shot("portal-dark", "The same, dark", "/portal", "dark"),
    Shot("portal-phone", "The same on a telephone", "/portal", size=NARROW),
    *(
        Shot(f"portal-{tab}", f"Portal: {tab}", f"/portal/{tab}")
        for tab in ("usage", "keys", "sites", "billing", "caps", "alerts", "people")
    ),
)
"""As a person of the organization sees them, who came by a link of the vendor's server."""


def main(folder: Path, data_dir: Path | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with stack() if data_dir is None else nullcontext(ready_of(data_dir)) as ready, sync_playwright() as playwright:
        browser = chromium(playwright)
        if browser is None:
            sys.exit(NEEDED)
        page = browser.new_page()
        page.goto(console_link(ready))
        page.get_by_role("button", name="Sign in").click()
        base = ready["control"]
        org = organization(page, base)
        shown = [INTRODUCTION, *written(folder, page, base, shots(org))]
        customer = browser.new_page()
        customer.goto(portal_link(page, base, org))
        customer.get_by_role("button").first.click()
        shown += written(folder, customer, base, PORTAL)
        (folder / "README.md").write_text("\n".join(shown))
        browser.close()


def written(folder: Path, page: Page, base: str, all_shots: Sequence[Shot]) -> Iterator[str]:
    """What the list of pictures says of those that could be taken."""
    for shot in all_shots:
        taken = take(page, base, shot)
        if taken is not None:
            (folder / f"{shot.name}.webp").write_bytes(taken)
            yield f"## {shot.caption}\n\n![{shot.caption}]({shot.name}.webp)\n"
        sys.stdout.write(f"{shot.name}: {'no such page' if taken is None else f'{len(taken):,} bytes'}\n")


def ready_of(data_dir: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((data_dir / "ready.json").read_text())
    return found


def console_link(ready: dict[str, str]) -> str:
    """That of ready.json opens once only."""
    headers = {"authorization": f"Bearer {ready['admin_token']}"}
    made = httpx.post(f"{ready['control']}/v1/console-links", json={}, headers=headers, timeout=60)
    return str(made.raise_for_status().json()["url"])


def portal_link(page: Page, base: str, org: str) -> str:
    """As the vendor's server asks for it."""
    page.goto(f"{base}/console/account")
    asks = """async org => {
        const token = document.querySelector('meta[name="csrf-token"]').content;
        const headers = {"content-type": "application/json", "x-csrf-token": token};
        const body = JSON.stringify({org, role: "owner"});
        return (await fetch("/v1/portal-sessions", {method: "POST", headers, body})).json();
    }"""
    return str(page.evaluate(asks, org)["url"])


@contextmanager
def stack() -> Iterator[dict[str, str]]:
    """Yields what ready.json says."""
    with TemporaryDirectory() as data_dir:
        ports = ["--gateway-port", "0", "--control-port", "0"]
        up = [sys.executable, "-m", "quotagate", "up", "--demo-history", "--data-dir", f"{data_dir}/data", *ports]
        log = Path(data_dir) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(up, stdout=output)
        try:
            ready, deadline = Path(data_dir) / "data" / "ready.json", time.monotonic() + START_SECONDS
            while not ready.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(log.read_text())
                time.sleep(0.2)
            yield ready_of(ready.parent)
        finally:
            process.terminate()
            process.wait()


def organization(page: Page, base: str) -> str:
    """One that has something to show: it pays for one of the larger plans."""
    listed = page.request.get(f"{base}/v1/organizations?limit=1000").json()["organizations"]
    for each in listed:
        answer = page.request.get(f"{base}/v1/entitlements/{each['id']}")
        if answer.ok and (answer.json()["plan"], answer.json()["status"]) == ("pro", "active"):
            return str(each["id"])
    return str(listed[0]["id"])


def take(page: Page, base: str, shot: Shot) -> bytes | None:
    """WebP; None where there is no such page."""
    page.emulate_media(color_scheme=shot.scheme)
    page.set_viewport_size({"width": shot.size[0], "height": shot.size[1]})
    answer = page.goto(f"{base}{shot.path}")
    if answer is None or answer.status == 404:
        return None
    if answer.status >= 400:
        sys.exit(f"{shot.path}: {answer.status}: {re.sub('<[^>]+>', ' ', page.content())}")
    page.wait_for_timeout(SETTLE_MS)
    session = page.context.new_cdp_session(page)
    picture = session.send("Page.captureScreenshot", {"format": "webp", "quality": QUALITY})
    session.detach()
    return base64.b64decode(picture["data"])


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
