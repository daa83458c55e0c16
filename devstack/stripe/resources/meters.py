"""Billing meters: events, and what they add up to."""

from devstack.stripe.account import Account, Object, RequestRefused
from devstack.stripe.dispatch import listing, route

PAST_SECONDS_MAX, AHEAD_SECONDS_MAX = 35 * 86_400, 300
UNIQUE_SECONDS = 86_400


def usage(account: Account, meter_id: str, customer: str, start: int, end: int) -> int:
    """What the customer's events in [start, end) add up to."""
    event_name = account.get("billing.meter", meter_id)["event_name"]
    return sum(
        int(each["payload"]["value"])
        for each in account.objects.get("billing.meter_event", {}).values()
        if each["event_name"] == event_name
        and each["payload"]["stripe_customer_id"] == customer
        and start <= each["timestamp"] < end
    )


@route("POST", "/v1/billing/meters", "billing.MeterCreateParams")
def create(account: Account, params: Object) -> Object:
    if any(account.find("billing.meter", event_name=params["event_name"], status="active")):
        raise RequestRefused(f"A meter with event_name {params['event_name']} is active already.", param="event_name")
    now = account.clock.now()
    meter = account.add(
        {
            "id": account.new_id("mtr"),
            "object": "billing.meter",
            "created": now,
            "customer_mapping": {"event_payload_key": "stripe_customer_id", "type": "by_id"},
            "default_aggregation": params["default_aggregation"],
            "display_name": params["display_name"],
            "event_name": params["event_name"],
            "event_time_window": None,
            "livemode": False,
            "status": "active",
            "status_transitions": {"deactivated_at": None},
            "updated": now,
            "value_settings": {"event_payload_key": "value"},
        }
    )
    account.emit("billing.meter.created", meter)
    return meter


@route("GET", "/v1/billing/meters", "billing.MeterListParams")
def list_(account: Account, params: Object) -> Object:
    return listing(account.find("billing.meter", status=params.get("status")), params, "/v1/billing/meters")


@route("GET", "/v1/billing/meters/{meter_id}", "billing.MeterRetrieveParams")
def retrieve(account: Account, params: Object, meter_id: str) -> Object:
    return account.get("billing.meter", meter_id)


@route("POST", "/v1/billing/meters/{meter_id}/deactivate", "billing.MeterDeactivateParams")
def deactivate(account: Account, params: Object, meter_id: str) -> Object:
    meter = account.get("billing.meter", meter_id)
    meter["status"] = "inactive"
    meter["status_transitions"]["deactivated_at"] = account.clock.now()
    return meter


@route("POST", "/v1/billing/meter_events", "billing.MeterEventCreateParams")
def create_event(account: Account, params: Object) -> Object:
    now = account.clock.now()
    at = params.get("timestamp", now)
    if not account.clock.earliest() - PAST_SECONDS_MAX <= at <= now + AHEAD_SECONDS_MAX:
        raise RequestRefused(
            "The timestamp must be within the past 35 days or up to 5 minutes ahead.", param="timestamp"
        )
    if not any(account.find("billing.meter", event_name=params["event_name"], status="active")):
        raise RequestRefused(f"No active meter found for event name: {params['event_name']}", param="event_name")
    payload = params["payload"]
    try:
        int(payload["value"])
        customer = payload["stripe_customer_id"]
    except (KeyError, ValueError):
        raise RequestRefused("The payload needs stripe_customer_id and a whole value.", param="payload") from None
    account.get("customer", customer)
    identifier = params.get("identifier") or account.new_id("mevt")
    used_at = account.note("meter_event_identifiers")
    if now - used_at.get(identifier, now - UNIQUE_SECONDS) < UNIQUE_SECONDS:
        raise RequestRefused(f"An event already exists with identifier {identifier}.", param="identifier")
    used_at[identifier] = now  # after UNIQUE_SECONDS, the same identifier is another event
    event = account.add(
        {
            "id": account.new_id("mevt"),
            "object": "billing.meter_event",
            "created": now,
            "event_name": params["event_name"],
            "identifier": identifier,
            "livemode": False,
            "payload": payload,
            "timestamp": at,
        }
    )
    return {name: value for name, value in event.items() if name != "id"}


@route("GET", "/v1/billing/meters/{meter_id}/event_summaries", "billing.MeterListEventSummariesParams")
def summaries(account: Account, params: Object, meter_id: str) -> Object:
    start, end = params["start_time"], params["end_time"]
    if start % 60 or end % 60:
        raise RequestRefused("start_time and end_time must be aligned with minute boundaries.", param="start_time")
    account.get("billing.meter", meter_id)
    summary = {
        "id": f"mtrusg_{meter_id}_{start}",
        "object": "billing.meter_event_summary",
        "aggregated_value": float(usage(account, meter_id, params["customer"], start, end)),
        "end_time": end,
        "livemode": False,
        "meter": meter_id,
        "start_time": start,
    }
    return listing([summary], params, f"/v1/billing/meters/{meter_id}/event_summaries")
