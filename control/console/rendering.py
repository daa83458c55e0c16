"""Templates -> answers, with the policy that each page has: no script, nothing from elsewhere, in no frame."""

import re
from collections.abc import Mapping
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, select_autoescape
from markupsafe import Markup
from starlette.responses import HTMLResponse, RedirectResponse, Response

SEE_OTHER: Final = 303
HEADERS: Final[Mapping[str, str]] = {
    # https://www.w3.org/TR/CSP3/
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""`Cache-Control: no-store` and `nosniff` are on every answer of this port (control/http/envelope.py)."""
STYLE: Final = files("control.console").joinpath("static/console.css").read_bytes()

_BROWSERS: Final = (
    ("Edg/", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
)
_SYSTEMS: Final = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
)


def page(template: str, status: int = 200, **values: Any) -> Response:
    return HTMLResponse(_templates.get_template(template).render(**values), status, HEADERS)


def redirect(to: str) -> Response:
    return RedirectResponse(to, SEE_OTHER, HEADERS)


def style() -> Response:
    return Response(STYLE, headers=HEADERS, media_type="text/css")


def browser_of(user_agent: str) -> str:
    """A few words that a person recognises. The field says what the client likes, so it decides nothing."""
    browser = next((name for part, name in _BROWSERS if part in user_agent), None)
    system = next((name for part, name in _SYSTEMS if part in user_agent), None)
    if browser is not None and system is not None:
        return f"{browser} on {system}"
    return browser or re.sub(r"[\s/(].*", "", user_agent, flags=re.DOTALL)[:40] or "Unknown"


def _time(at: datetime) -> Markup:
    return Markup('<time datetime="{}">{}</time>').format(at.isoformat(), f"{at:%Y-%m-%d %H:%M}")


_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=select_autoescape(default=True),
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.filters |= {"browser": browser_of, "moment": _time}
