"""All pages of the portal."""

from typing import Final

from control.portal import alerts, billing, branding, embed, entry, keys, overview, people, sites, usage

ROUTERS: Final = (
    entry.open_router,
    entry.router,
    branding.router,
    embed.router,
    overview.router,
    usage.router,
    alerts.router,
    billing.router,
    keys.router,
    sites.router,
    people.router,
)
