"""What each page must be: usable without eyes, without a mouse and on a telephone, quiet in the console, and small."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, Page, Response, expect

from tests.browser.running import Console, new_page, sign_in
from tests.directory import ADA

WIDE: Final = 1280
NARROW: Final = 390
HEIGHT: Final = 900
LOOKS: Final[tuple[tuple[int, Literal["light", "dark"]], ...]] = ((WIDE, "light"), (NARROW, "dark"))
"""Colours do not depend on the width, nor what is where on the colours: so two of the four are enough."""
PAGE_BYTES_MAX: Final = 100_000
LISTENS = """
    document.addEventListener("securitypolicyviolation", event => console.error("policy: " + event.violatedDirective));
"""
LOOK: Final = """
    async options => {
        // What is being asked for is paler until it is there, and a live page asks again and again.
        const hold = event => event.preventDefault();
        document.addEventListener("htmx:beforeRequest", hold);
        try {
            while (document.querySelector(".htmx-request")) await new Promise(done => setTimeout(done, 20));
            const ends = each => Number.isFinite(each.effect.getComputedTiming().endTime);
            await Promise.allSettled(document.getAnimations().filter(ends).map(each => each.finished));
            return (await axe.run(options)).violations;
        } finally {
            document.removeEventListener("htmx:beforeRequest", hold);
        }
    }
"""
AXE: Final[dict[str, Any]] = {
    "resultTypes": ["violations"],
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]},
}


def signed_in(page: Page, console: Console, person: dict[str, Any] | None = None) -> Page:
    """On the console's first page, as an admin if nobody else is named."""
    sign_in(page, console, person or ADA, "/console")
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    return page


@contextmanager
def plain(browser: Browser, console: Console, person: dict[str, Any] | None = None) -> Iterator[Page]:
    """A browser that runs no scripts, signed in."""
    page = new_page(browser, java_script_enabled=False)
    try:
        yield signed_in(page, console, person)
    finally:
        page.context.close()


def check_page(page: Page, address: str) -> None:
    """Opens it wide and light, narrow and dark, and looks for everything that no page may have."""
    said: list[str] = []
    answers: list[Response] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("response", lambda answer: answers.append(answer))
    page.add_init_script(LISTENS)
    page.set_viewport_size({"width": WIDE, "height": HEIGHT})
    answer = page.goto(address)
    assert answer is not None
    assert answer.status < 500, (address, answer.status)
    assert_small(address, answers)
    for width, scheme in LOOKS:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": HEIGHT})
        assert_accessible(page, f"{address} at {width} px, {scheme}")
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{address} scrolls sideways at {width} px: it is {wide} px wide"
    assert page.locator("h1:visible").count() == 1, f"{address} has no single h1"
    assert page.locator("[style], script:not([src])").count() == 0, f"{address} has an inline style or script"
    expected = [text for text in said if not (answer.status >= 400 and "Failed to load resource" in text)]
    assert expected == [], (address, expected)
    page.emulate_media(color_scheme=None)
    page.set_viewport_size({"width": WIDE, "height": HEIGHT})


def assert_accessible(page: Page, where: str) -> None:
    # Half a megabyte, which the browser would read anew for each look.
    if not page.evaluate("typeof window.axe?.run === 'function'"):
        page.evaluate(AXE_SCRIPT)
    violations = page.evaluate(LOOK, AXE)
    faults = [
        (violation["id"], node["html"][:200], node.get("failureSummary"))
        for violation in violations
        for node in violation["nodes"]
    ]
    assert faults == [], f"{where}: {faults}"


def assert_small(address: str, answers: list[Response]) -> None:
    """What a browser loads that has nothing yet. HTML is not compressed: it holds a token."""
    loaded: dict[str, int] = {}
    for answer in answers:
        if answer.request.resource_type in ("document", "stylesheet", "script", "image") and answer.status == 200:
            if answer.url.startswith("data:"):
                continue
            length = answer.header_value("content-length")
            loaded[answer.url] = int(length) if length else len(answer.body())
    assert sum(loaded.values()) <= PAGE_BYTES_MAX, (address, loaded)
