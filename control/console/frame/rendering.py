"""Templates -> answers, with the policy that each page has: nothing inline, nothing from elsewhere, in no frame."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.responses import HTMLResponse, RedirectResponse, Response

from control.access.permissions import Permission
from control.console.frame import charts, formats
from control.console.frame.browsers import browser_of
from control.console.frame.static_files import static

SEE_OTHER: Final = 303
HEADERS: Final[Mapping[str, str]] = {
    # https://www.w3.org/TR/CSP3/
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Further ones are on every answer of this port (control/http/envelope.py)."""
NOTICE_COOKIE: Final = "__Host-quotagate-notice"
NOTICE_CHARACTERS_MAX: Final = 500
NOTICE_SECONDS: Final = 60  # until the page that the browser is sent to is there

_CONTROL: Final = Path(__file__).parents[2]
_templates: Final = Environment(
    loader=FileSystemLoader([_CONTROL / "console" / "templates", _CONTROL / "portal" / "templates"]),
    autoescape=select_autoescape(default=True),
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,  # a misspelled value would be an empty place that nobody notices
)
_templates.filters |= {**formats.FILTERS, "browser": browser_of}
_templates.globals |= {"P": Permission, "chart": charts, "money_in": formats.money_in, "static": static}
_PARTS: Final = sorted(file.name for file in (_CONTROL / "console" / "templates" / "parts").glob("*.html"))


def page(template: str, status: int = 200, **values: Any) -> Response:
    return HTMLResponse(rendered(template, **values), status, HEADERS)


def rendered(template: str, **values: Any) -> str:
    given = {"viewer": None, "here": "", "twin": None, "notice": None} | values
    given["link"] = lambda **changes: address_with(given["here"], changes)
    given["ui"] = _parts(given)
    return _templates.get_template(template).render(given)


def _parts(values: Mapping[str, Any]) -> SimpleNamespace:
    """All macros by their names. They see the page's values, and each other as `ui`."""
    parts = SimpleNamespace()
    for name in _PARTS:
        module = _templates.get_template(f"parts/{name}").make_module({**values, "ui": parts})
        vars(parts).update({word: macro for word, macro in vars(module).items() if not word.startswith("_")})
    return parts


def redirect(to: str, done: str | None = None) -> Response:
    """`done`: what the next page says has happened."""
    answer = RedirectResponse(to, SEE_OTHER, HEADERS)
    if done is not None:
        text = quote(done[:NOTICE_CHARACTERS_MAX])
        answer.set_cookie(NOTICE_COOKIE, text, NOTICE_SECONDS, path="/", secure=True, httponly=True, samesite="lax")
    return answer


def notice_of(request: Request) -> str | None:
    """What has just been done. Only answers of ours can set it, so no link of another makes a page say something."""
    text = request.cookies.get(NOTICE_COOKIE)
    return None if text is None else unquote(text)[:NOTICE_CHARACTERS_MAX]


def forget_notice(answer: Response) -> None:
    answer.delete_cookie(NOTICE_COOKIE, path="/", secure=True, httponly=True, samesite="lax")


def address_with(address: str, changes: Mapping[str, object]) -> str:
    """The address with these parameters instead; None removes one."""
    parts = urlsplit(address)
    kept = [(name, value) for name, value in parse_qsl(parts.query) if name not in changes]
    added = [(name, str(value)) for name, value in changes.items() if value is not None]
    query = urlencode(kept + added)
    return f"{parts.path}?{query}" if query else parts.path
