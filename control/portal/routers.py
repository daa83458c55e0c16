"""All pages of the portal."""

from typing import Final

from control.portal import alerts, billing, branding, caps, embed, entry, keys, overview, people, sign_in, sites, usage

ROUTERS: Final = (
    entry.open_router,
    entry.router,
    sign_in.router,
    branding.router,
    embed.router,
    overview.router,
    usage.router,
    alerts.router,
    caps.router,
    billing.router,
    keys.router,
    sites.router,
    people.router,
)
