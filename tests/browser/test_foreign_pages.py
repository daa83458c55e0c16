"""Pages of others, in the browser of somebody who is signed in: they can do nothing in that person's name."""

import re

import pytest
from playwright.sync_api import Page, Response, expect

from tests.browser.running import Console, call, page_elsewhere, page_token, session_of, sign_in
from tests.directory import ADA


def form(url: str, **fields: str) -> str:
    inputs = "".join(f'<input name="{name}" value="{value}">' for name, value in fields.items())
    return f'<form method="post" action="{url}">{inputs}<button>Win</button></form>'


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_form_of_another_page_does_nothing(console: Console, page: Page, host: str) -> None:
    """A page on another port of this host is the same site: its form brings the cookie, whatever SameSite says."""
    sign_in(page, console, ADA)
    token, before = page_token(page), session_of(page)  # even whoever knew the token
    with page_elsewhere(form(f"{console.url}/console/sign-out", token=token)) as port:
        page.goto(f"http://{host}:{port}/")
        page.get_by_role("button", name="Win").click()
        expect(page.get_by_role("heading")).to_have_text("This is not possible")
    page.goto(f"{console.url}/console/account")
    expect(page.get_by_role("heading", name="Your account")).to_be_visible()
    assert session_of(page) == before


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_form_of_another_page_signs_nobody_in_by_a_link(console: Console, page: Page, host: str) -> None:
    code = console.link().partition("code=")[2]
    with page_elsewhere(form(f"{console.url}/console/link", code=code)) as port:
        page.goto(f"http://{host}:{port}/")
        page.get_by_role("button", name="Win").click()
        expect(page.get_by_role("heading")).to_have_text("This is not possible")
    page.goto(f"{console.url}/console")
    expect(page).to_have_url(re.compile("/console/sign-in"))


def test_a_script_of_another_page_reads_and_changes_nothing(console: Console, page: Page) -> None:
    sign_in(page, console, ADA)
    expect(page.get_by_role("heading", name="Your account")).to_be_visible()
    token = page_token(page)
    with page_elsewhere("<p>nothing to see</p>") as port:
        page.goto(f"http://127.0.0.1:{port}/")
        asked = """async ([url, token]) => {
            const results = [];
            for (const [method, mode, headers] of [
                ["GET", "cors", {}], ["GET", "no-cors", {}], ["POST", "no-cors", {}],
                ["PUT", "cors", {"x-csrf-token": token, "content-type": "application/json"}]]) {
                try {
                    const body = method === "GET" ? undefined : "{}";
                    const answer = await fetch(url, {method, mode, headers, body, credentials: "include"});
                    results.push(answer.type === "opaque" ? "opaque" : answer.status);
                } catch (error) { results.push("refused"); }
            }
            return results;
        }"""
        results = page.evaluate(asked, [f"{console.url}/v1/organizations/of-a-stranger", token])
    assert set(results) <= {"refused", "opaque"}
    assert console.admin.get("/v1/organizations/of-a-stranger").status_code == 404


def test_no_page_frames_ours(console: Console, page: Page) -> None:
    sign_in(page, console, ADA)
    expect(page.get_by_role("heading", name="Your account")).to_be_visible()
    with page_elsewhere(f'<iframe src="{console.url}/console/account"></iframe>') as port:
        page.goto(f"http://127.0.0.1:{port}/")
        framed = page.frame_locator("iframe").get_by_role("heading", name="Your account")
        page.wait_for_load_state("load")
        expect(framed).to_have_count(0)


def test_a_call_of_a_page_needs_the_token_of_its_own_session(console: Console, scripted: Page) -> None:
    sign_in(scripted, console, ADA)
    token, path = page_token(scripted), "/v1/organizations/of-a-page"
    assert call(scripted, "PUT", path, body='{"name": "A"}') == 403
    assert call(scripted, "PUT", path, token=token[:-1] + "_", body='{"name": "A"}') == 403
    assert call(scripted, "PUT", path, token=token, body='{"name": "A"}') == 201


def test_a_script_in_a_page_of_ours_is_not_run(console: Console, page: Page) -> None:
    """If somebody ever got one into a page: the policy knows only files of ours."""
    sign_in(page, console, ADA)
    expect(page.get_by_role("heading", name="Your account")).to_be_visible()
    assert page.locator("script:not([src^='/console/static/'])").count() == 0
    assert page.locator("[style]").count() == 0
    refused = page.evaluate(
        """() => new Promise(resolve => {
            const seen = [];
            document.addEventListener("securitypolicyviolation", event => {
                seen.push(event.effectiveDirective);
                if (seen.length === 3) resolve(seen.sort());
            });
            const inline = document.createElement("script");
            inline.textContent = "window.ran = true";
            document.body.append(inline);
            const handler = document.createElement("button");
            handler.setAttribute("onclick", "window.ran = true");
            handler.click();
            const file = document.createElement("script");
            file.src = "https://elsewhere.example/script.js";
            document.body.append(file);
        })"""
    )
    assert refused == ["script-src-attr", "script-src-elem", "script-src-elem"]
    assert page.evaluate("window.ran") is None


def test_each_answer_says_what_a_browser_may_do_with_it(console: Console, page: Page) -> None:
    answers: list[Response] = []
    page.on("response", lambda answer: answers.append(answer))  # Playwright marks its handlers: no built-in method
    sign_in(page, console, ADA)
    expect(page.get_by_role("heading", name="Your account")).to_be_visible()
    page.wait_for_load_state("load")
    own = {
        each.url.removeprefix(console.url): each.all_headers() for each in answers if each.url.startswith(console.url)
    }
    files = {path for path in own if path.startswith("/console/static/")}
    assert {"/console/account", "/console/sign-in"} <= {path.partition("?")[0] for path in own}
    assert {"console.css", "console.js"} <= {path.partition("?")[0].rpartition("/")[2] for path in files}
    for path, headers in own.items():
        assert headers["cache-control"] == ("public, max-age=31536000, immutable" if path in files else "no-store")
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"
        policy = set(headers["content-security-policy"].split("; "))
        assert "default-src 'none'" in policy
        if path not in files:
            assert {"frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'", "script-src 'self'"} <= policy
        assert "unsafe-inline" not in headers["content-security-policy"]
