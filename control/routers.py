"""All endpoints: the control API and the console. The OpenAPI document has them in this order."""

from typing import Final

from control.api import actions as actions_api
from control.api import activation as activation_api
from control.api import (
    activation_codes,
    alerts,
    bulk_actions,
    caps,
    configuration,
    docs,
    entitlements,
    forecast,
    grants,
    health,
    incidents,
    money,
    organization_overview,
    people,
    people_admin_roles,
    people_mirror,
    people_personal,
    people_service_tokens,
    plans,
    quota_check,
    sites,
    stripe_events,
    supposed_requests,
    tiles,
    unit_economics,
    webhooks,
)
from control.api import analytics as analytics_api
from control.api import audit as audit_api
from control.api import billing as billing_api
from control.api import decisions as decisions_api
from control.api import issuing as issuing_api
from control.api import keys as keys_api
from control.api import leaks as leaks_api
from control.api import notifications as notifications_api
from control.api import organizations as organizations_api
from control.api import portal as portal_api
from control.api import revocations as revocations_api
from control.api import sessions as sessions_api
from control.api import usage as usage_api
from control.api import what_if as what_if_api
from control.console.actions import approvals as approvals_pages
from control.console.actions import organization as actions_pages
from control.console.analytics import pages as analytics_pages
from control.console.analytics import what_if as what_if_pages
from control.console.decisions import pages as decision_pages
from control.console.frame import static_files
from control.console.incidents import pages as incident_pages
from control.console.journal import pages as journal_pages
from control.console.organizations import bulk_pages
from control.console.organizations import list_page as organization_list
from control.console.organizations import pages as organization_pages
from control.console.overview import missing, overview
from control.console.people import pages as people_pages
from control.console.signin import account, entry
from control.console.webhooks import pages as webhook_pages
from control.portal import routers as portal

ROUTERS: Final = (
    organizations_api.router,
    actions_api.router,
    organization_overview.router,
    bulk_actions.router,
    entitlements.router,
    grants.router,
    keys_api.router,
    leaks_api.router,
    revocations_api.router,
    activation_api.router,
    activation_codes.router,
    sites.router,
    plans.router,
    configuration.router,
    tiles.router,
    incidents.router,
    notifications_api.router,
    audit_api.router,
    analytics_api.router,
    unit_economics.router,
    quota_check.router,
    usage_api.router,
    forecast.router,
    alerts.router,
    caps.router,
    what_if_api.router,
    decisions_api.router,
    supposed_requests.supposed,
    supposed_requests.explanations,
    supposed_requests.routes,
    billing_api.router,
    stripe_events.router,
    money.router,
    people.users,
    people.members,
    people_admin_roles.router,
    people_personal.router,
    people_mirror.webhooks,
    people_mirror.router,
    people_service_tokens.router,
    sessions_api.router,
    portal_api.router,
    account.router,
    account.open_router,
    entry.router,
    static_files.router,
    actions_pages.router,
    approvals_pages.router,
    overview.router,
    analytics_pages.router,
    *portal.ROUTERS,
    what_if_pages.router,
    organization_list.router,
    bulk_pages.router,
    organization_pages.router,
    people_pages.router,
    webhooks.router,
    issuing_api.router,
    issuing_api.well_known,
    health.router,
    docs.router,
    decision_pages.router,
    incident_pages.router,
    journal_pages.router,
    webhook_pages.router,
    missing.router,  # the last: it takes what is left of /console
)
