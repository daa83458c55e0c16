"""The customer portal: its configurations and sessions."""

from devstack.stripe.account import Account, Object
from devstack.stripe.resources import customers
from devstack.stripe.routes import listing, route


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
            "features": params["features"],
            "is_default": not account.objects.get("billing_portal.configuration"),
            "livemode": False,
            "login_page": {"enabled": False, "url": None},
            "metadata": params.get("metadata") or {},
            "updated": now,
        }
    )


@route("GET", "/v1/billing_portal/configurations", "billing_portal.ConfigurationListParams")
def list_configurations(account: Account, params: Object) -> Object:
    found = account.find("billing_portal.configuration", active=params.get("active"))
    return listing(found, params, "/v1/billing_portal/configurations")


@route("GET", "/v1/billing_portal/configurations/{configuration}", "billing_portal.ConfigurationRetrieveParams")
def retrieve_configuration(account: Account, params: Object, configuration: str) -> Object:
    return account.get("billing_portal.configuration", configuration)


@route("POST", "/v1/billing_portal/sessions", "billing_portal.SessionCreateParams")
def create_session(account: Account, params: Object) -> Object:
    customers.alive(account, params["customer"])
    session_id = account.new_id("bps")
    return account.add(
        {
            "id": session_id,
            "object": "billing_portal.session",
            "configuration": params.get("configuration"),
            "created": account.clock.now(),
            "customer": params["customer"],
            "flow": None,
            "livemode": False,
            "locale": None,
            "on_behalf_of": None,
            "return_url": params.get("return_url"),
            "url": f"{account.settings.get('url', '')}/portal/{session_id}",
        }
    )
