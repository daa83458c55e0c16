"""The customers' own portal: the block `portal` of control.yaml."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from common.settings_file import SettingsConflict, SettingsModel
from control.settings.signin import IdentityProvider, claim_path, origin

LOGO_TYPES: Final = {".png": "image/png", ".svg": "image/svg+xml", ".webp": "image/webp"}

Text = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
Colour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]
Claim = Annotated[str, AfterValidator(claim_path)]
Role = Literal["member", "admin", "owner"]
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


class CustomerSignIn(IdentityProvider):
    """The vendor's identity provider, at which customers sign in. Its redirect URI here is
    `public_url`/portal/signed-in."""

    label: Text | None = None
    """What people read on the button; null: the brand's name."""
    organization_claim: Claim
    """The claim that names the organization by its id here: org_id. Of several, the person chooses one."""
    user_claim: Claim = "sub"
    """The claim that names the user, as the user claim of tokens does. A user who is known here as a member is one by
    this name."""
    role_claim: Claim | None = None
    """The claim that names the role in the organization; null: everybody has `default_role`. The role of a member who
    is known here counts instead."""
    roles: Mapping[str, Role] = {}
    """Which role a value of that claim is; none: member, admin and owner are those, with or without `org:` before."""
    default_role: Role | None = "member"
    """Of whom the claim gives none; null: that person does not come in."""

    @property
    def claims_wanted(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.organization_claim, self.user_claim, self.role_claim)))

    @model_validator(mode="after")
    def _roles_by_a_claim(self) -> Self:
        if self.roles and self.role_claim is None:
            raise SettingsConflict([(("roles",), "needs role_claim")])
        if self.default_role is None and self.role_claim is None:
            raise SettingsConflict([(("default_role",), "is needed where there is no role_claim")])
        return self


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
    sign_in: CustomerSignIn | None = None
    """null: only links of POST /v1/portal-sessions open the portal."""
    brand: Brand = Brand()
    embed_origins: Annotated[tuple[Annotated[str, AfterValidator(origin)], ...], Field(max_length=50)] = ()
    """Origins whose pages may read the forecast with a token of their own, for `<quotagate-usage>`. None: no page of
    another origin reads anything."""
