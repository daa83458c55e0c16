"""The `activation` block of control.yaml. It needs `issuing`, since the control plane issues the tokens of sites."""

from typing import Annotated

from pydantic import Field

from common.settings_file import SettingsModel

DomainPattern = Annotated[
    str, Field(max_length=253, pattern=r"^((\*\.)?[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*|[a-z0-9_-]{1,63}\.\*)$")
]
"""A domain, `*.domain` for all below it, or `label.*` for a first label; international names in ASCII (xn--…)."""


class Activation(SettingsModel):
    """Activation codes, and the tokens of activated sites."""

    code_seconds: Annotated[int, Field(ge=60, le=31_536_000)] = 259_200
    """How long an activation code is good for, where nothing else is asked."""
    code_seconds_max: Annotated[int, Field(ge=60, le=31_536_000)] = 2_592_000
    """No code is good for longer."""
    access_seconds: Annotated[int, Field(ge=1, le=86_400)] = 600
    """The life of a site's access token, where its activation code names none; at most `issuing.token_seconds`."""
    refresh_days: Annotated[float, Field(gt=0, le=3650)] = 90
    """A site that has not refreshed its tokens for so long must be activated again."""
    grace_seconds: Annotated[float, Field(ge=0, le=3600)] = 60
    """For so long after a refresh its request may come again, and gets the same tokens: its reply may be lost."""
    silent_days: Annotated[float, Field(gt=0, le=365)] = 7
    """A site that has not been heard of for so long gives its seat to its copy at another domain: it has moved."""
    staging_sites_max: Annotated[int, Field(ge=0, le=10_000)] = 10
    """Sites of an organization that take no seat, copies included. Beyond, the one that has been silent for longest,
    and for more than a day, makes room."""
    uncounted_domains: Annotated[tuple[DomainPattern, ...], Field(max_length=1000)] = ()
    """Domains that take no seat, beside those of config/uncounted-domains.yaml."""
    self_service_sites_max: Annotated[int, Field(ge=0, le=100_000)] = 5
    """An organization's own people can make codes for so many sites in all, those that are active included. 0: only
    the vendor makes codes."""
