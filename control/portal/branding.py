"""The vendor's name, logo and colours on the portal's pages. A stylesheet of its own has the colours: the pages' policy
allows no inline style."""

from functools import cache
from typing import Final

from fastapi import APIRouter
from starlette.responses import Response

from common.settings_file import SettingsConflict
from control.console.frame.page_route import PageRefused
from control.console.frame.rendering import HEADERS
from control.http.context import Ctx
from control.portal.route import PortalRoute
from control.settings.portal import LOGO_TYPES, Brand

router = APIRouter(prefix="/portal", include_in_schema=False, route_class=PortalRoute)

LOGO_BYTES_MAX: Final = 30_000  # a page with all that it loads has 100,000
CACHED: Final = {"Cache-Control": "public, max-age=300"}
BLACK, WHITE = "#18181b", "#ffffff"


@router.get("/brand.css")
async def read_style(ctx: Ctx) -> Response:
    """The vendor's colours."""
    return Response(style_of(ctx.portal.settings.brand), headers={**HEADERS, **CACHED}, media_type="text/css")


@router.get("/logo")
async def read_logo(ctx: Ctx) -> Response:
    """The vendor's logo."""
    brand = ctx.portal.settings.brand
    if brand.logo is None:
        raise PageRefused(404, "There is nothing here", "No logo is set.")
    return Response(logo_of(brand), headers={**HEADERS, **CACHED}, media_type=LOGO_TYPES[brand.logo.suffix.lower()])


@cache
def logo_of(brand: Brand) -> bytes:
    """Raises SettingsConflict."""
    assert brand.logo is not None  # noqa: S101  whoever calls has looked
    try:
        content = brand.logo.read_bytes()
    except OSError as e:
        raise SettingsConflict([(("portal", "brand", "logo"), f"cannot be read: {e.strerror}")]) from e
    if len(content) > LOGO_BYTES_MAX:
        raise SettingsConflict([(("portal", "brand", "logo"), f"has more than {LOGO_BYTES_MAX} bytes")])
    return content


@cache
def style_of(brand: Brand) -> str:
    if brand.color is None:
        return ":root {}\n"
    light, dark = brand.color, brand.color_dark or brand.color
    return (
        ":root {\n"
        f"  --primary: light-dark({light}, {dark});\n"
        f"  --on-primary: light-dark({text_on(light)}, {text_on(dark)});\n"
        f"  --s0: light-dark({light}, {dark});\n"
        "}\n"
    )


def text_on(color: str) -> str:
    """Black or white, whichever has more contrast (WCAG 2.2, 1.4.3). One of them has at least 4.5."""
    luminance = _luminance(color)
    return WHITE if 1.05 / (luminance + 0.05) >= (luminance + 0.05) / (_luminance(BLACK) + 0.05) else BLACK


def _luminance(color: str) -> float:
    """https://www.w3.org/TR/WCAG22/#dfn-relative-luminance"""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return float(0.2126 * red + 0.7152 * green + 0.0722 * blue)
