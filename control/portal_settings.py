"""The customers' own portal: the block `portal` of control.yaml."""

from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from common.settings_file import SettingsModel
from control.signin_settings import origin

LOGO_TYPES: Final = {".png": "image/png", ".svg": "image/svg+xml", ".webp": "image/webp"}

Text = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
Colour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]
PageUrl = Annotated[str, Field(max_length=2048, pattern=r"^(https?://|mailto:)[!-~]+$")]


def _logo(file: Path) -> Path:
    if file.suffix.lower() not in LOGO_TYPES:
        raise ValueError(f"must be a file that ends with {', '.join(LOGO_TYPES)}")
    return file


class Brand(SettingsModel):
    """How the portal looks: as the vendor's own pages do."""

    name: Text = "Quotagate"
    """The vendor's or the product's."""
    logo: Annotated[Path, AfterValidator(_logo)] | None = None
    """A file (SVG, PNG or WebP, up to 30 KB), which is shown in place of the mark, beside the name. null: the mark."""
    color: Colour | None = None
    """Of buttons and of what is selected, as in #3366ff. null: as in the console. Texts on it are black or white,
    whichever is read better."""
    color_dark: Colour | None = None
    """The same where a person has chosen dark pages. null: as `color`."""
    home_url: PageUrl | None = None
    """The vendor's page, where people come from and sign in."""
    support_url: PageUrl | None = None
    """Where people ask for help: https:// or mailto:."""


class Portal(SettingsModel):
    """The portal, in which an organization's people see what it uses and pays, and change what they may."""

    public_url: Annotated[str, AfterValidator(origin)] | None = None
    """Where browsers reach it; null: where they reach the console (`signin.public_url`). A host name of its own keeps
    the cookies of the two apart."""
    link_minutes: Annotated[float, Field(gt=0, le=60)] = 5
    """A link of POST /v1/portal-sessions is good for so long, once."""
    idle_minutes: Annotated[float, Field(gt=0, le=525_600)] = 60
    """A session that was not used for so long has ended."""
    session_hours: Annotated[float, Field(gt=0, le=8_760)] = 12
    """After so long it has ended in any case."""
    brand: Brand = Brand()
    embed_origins: Annotated[tuple[Annotated[str, AfterValidator(origin)], ...], Field(max_length=50)] = ()
    """Origins whose pages may read the forecast with a token of their own, for `<quotagate-usage>`. None: no page of
    another origin reads anything."""
