"""The customer portal: its configurations and sessions."""

from typing import Any

from devstack.stripe.account import Account, Object, RequestRefused
from devstack.stripe.dispatch import listing, route
from devstack.stripe.resources import customers

FEATURES: Object = {
    "customer_update": {"allowed_updates": [], "enabled": False},
    "invoice_history": {"enabled": False},
    "payment_method_update": {"enabled": False, "payment_method_configuration": None},
    "subscription_cancel": {
        "cancellation_reason": {"enabled": False, "feedback_options": [], "options": []},
        "enabled": False,
        "mode": "at_period_end",
        "proration_behavior": "none",
    },
    "subscription_pause": {
        "duration": {"interval_options": [], "type": "indefinite"},
        "enabled": False,
    },
    "subscription_update": {
        "billing_cycle_anchor": None,
        "default_allowed_updates": [],
        "enabled": False,
        "proration_behavior": "none",
        "schedule_at_period_end": {"conditions": []},
        "trial_update_behavior": "end_trial",
    },
}
"""The features of a configuration that does not name them."""


@route("POST", "/v1/billing_portal/configurations", "billing_portal.ConfigurationCreateParams")
def create_configuration(account: Account, params: Object) -> Object:
    now = account.clock.now()
    return account.add(
        {
            "id": account.new_id("bpc"),
            "object": "billing_portal.configuration",
            "active": True,
            "application": None,
            "business_profile": {"headline": None, "privacy_policy_url": None, "terms_of_service_url": None},
            "created": now,
            "default_return_url": None,
            "features": {name: {**each, **params["features"].get(name, {})} for name, each in FEATURES.items()},
            "is_default": not account.objects.get("billing_portal.configuration"),
            "livemode": False,
            "login_page": {"enabled": False, "url": None},
            "metadata": params.get("metadata") or {},
            "name": params.get("name"),
            "updated": now,
        }
    )


@route("GET", "/v1/billing_portal/configurations", "billing_portal.ConfigurationListParams")
def list_configurations(account: Account, params: Object) -> Object:
    active, default = params.get("active"), params.get("is_default")
    configurations = account.find("billing_portal.configuration", active=active, is_default=default)
    return listing(configurations, params, "/v1/billing_portal/configurations")


@route("GET", "/v1/billing_portal/configurations/{configuration_id}", "billing_portal.ConfigurationRetrieveParams")
def retrieve_configuration(account: Account, params: Object, configuration_id: str) -> Object:
    return account.get("billing_portal.configuration", configuration_id)


@route("POST", "/v1/billing_portal/sessions", "billing_portal.SessionCreateParams")
def create_session(account: Account, params: Object) -> Object:
    customers.alive(account, params["customer"])
    session_id = account.new_id("bps")
    default = next(account.find("billing_portal.configuration", is_default=True), None)
    configuration_id: Any = params.get("configuration") or (default and default["id"])
    if configuration_id is None:
        raise RequestRefused("No configuration provided, and there is no default one.", param="configuration")
    account.get("billing_portal.configuration", configuration_id)
    return account.add(
        {
            "id": session_id,
            "object": "billing_portal.session",
            "configuration": configuration_id,
            "created": account.clock.now(),
            "customer": params["customer"],
            "customer_account": None,
            "flow": None,
            "livemode": False,
            "locale": None,
            "on_behalf_of": None,
            "return_url": params.get("return_url"),
            "url": f"{account.settings.get('url', '')}/portal/{session_id}",
        }
    )
