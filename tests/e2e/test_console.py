"""The console of `quotagate up`: one link opens it once, and the command makes another."""

import httpx

from tests.e2e.running import Command, Up


def opened(link: str) -> httpx.Response:
    """As a browser does it: looks at the page, presses its button, and follows."""
    console, code = link.split("/link?code=")
    with httpx.Client(headers={"sec-fetch-site": "same-origin"}) as browser:
        assert 'name="code"' in browser.get(link).text
        answer = browser.post(f"{console}/link", data={"code": code})
        if answer.status_code != 303:
            return answer
        secret = answer.cookies["__Host-quotagate"]
        # httpx keeps no Secure cookie for plain http; browsers do on this machine (tests/browser).
        return browser.get(f"{console}/account", headers={"cookie": f"__Host-quotagate={secret}"})


def test_the_printed_link_opens_the_console_once(stack: Up) -> None:
    link = stack.ready["console"]
    assert f"  {link}\n" in stack.output.read_text()
    page = opened(link)
    assert page.status_code == 200
    assert "Your account" in page.text
    assert opened(link).status_code == 403


def test_the_command_prints_another_link(stack: Up, quotagate: Command) -> None:
    made = quotagate("console-link", "--role", "viewer", "--data-dir", str(stack.data_dir))
    assert made.returncode == 0, made.stderr
    page = opened(made.stdout.strip())
    assert "viewer" in page.text
    refused = quotagate("console-link", "--role", "owner", "--data-dir", str(stack.data_dir))
    assert refused.returncode == 2
