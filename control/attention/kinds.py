"""The kinds of incidents: what each means, and what to do about it. Whoever opens one writes its name; a test finds
each name here."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final


class Tile(Enum):
    """The value is its name in the API."""

    FAILED_PAYMENTS = "failed_payments"
    QUOTA_BLOCKS = "quota_blocks"
    WEBHOOK_BACKLOG = "webhook_backlog"
    DEAD_LETTERS = "dead_letters"
    DRIFT = "drift"
    UPSTREAM_FAULTS = "upstream_faults"
    LEDGER_FAULTS = "ledger_faults"
    OTHER = "other"
    """What is in none of the others."""


@dataclass(frozen=True, slots=True)
class Kind:
    title: str
    means: str
    steps: tuple[str, ...]
    """What to do, in this order."""
    tile: Tile = Tile.OTHER
    closes_by_itself: bool = False
    """Once its cause is gone. Any other is closed by an admin."""


KINDS: Final[Mapping[str, Kind]] = {
    # Money that did not come
    "payment_failed": Kind(
        "Payment failed",
        "An invoice could not be collected, or is overdue. The organization keeps its plan while Stripe tries again, "
        "and for the grace period after that.",
        (
            "Look at the invoice: how much is open, how often it was tried, and when Stripe tries next.",
            "Write to the customer with the invoice's page, where another payment method can be entered.",
            "If the money came another way, mark the invoice paid at Stripe.",
        ),
        Tile.FAILED_PAYMENTS,
        closes_by_itself=True,
    ),
    "stripe_dispute": Kind(
        "Dispute",
        "A customer has asked the bank for the money back. Stripe has taken it until the bank decides.",
        ("Answer the dispute at Stripe before its due date, with what the organization has used as evidence.",),
        Tile.FAILED_PAYMENTS,
        closes_by_itself=True,
    ),
    # Who is refused
    "quota_exhausted": Kind(
        "Quota used up",
        "Of this meter nothing is left in the period, and requests are refused.",
        (
            "Look at the organization's usage: is it growth, or something that runs wild?",
            "Growth: offer the next plan, or give a grant until the period ends.",
            "Otherwise find the user or API key that uses so much, and limit it.",
        ),
        Tile.QUOTA_BLOCKS,
        closes_by_itself=True,
    ),
    # Messages that did not get through
    "stripe_event_dead": Kind(
        "Event of Stripe given up",
        "An event of Stripe could not be dealt with, and is not tried again by itself. What it tells of the customer "
        "may be missing here.",
        (
            "Read the last error of the event.",
            "Remove the cause: a permission of the key, a price that is in no plan, a release that reads it.",
            "Replay the event. It is harmless for one that was dealt with already.",
        ),
        Tile.DEAD_LETTERS,
        closes_by_itself=True,
    ),
    "stripe_event_unreadable": Kind(
        "Event of Stripe not readable",
        "Stripe signed an event that does not say what it is about.",
        ("Look at its payload, and resync the customer if it names one.",),
    ),
    "webhook_given_up": Kind(
        "Notification given up",
        "Your own system did not accept a notification for a day. It is not sent again by itself.",
        (
            "Look at the last error, and at your endpoint.",
            "Once the endpoint works, send again what was given up. The ids stay the same, so nothing counts twice.",
        ),
        Tile.DEAD_LETTERS,
        closes_by_itself=True,
    ),
    "webhook_endpoint_disabled": Kind(
        "Notifications stopped",
        "Your endpoint answered 410 Gone, which means that it wants no more. Nothing is sent while this is open.",
        ("Correct the endpoint's address, or make it answer.", "Resolve this incident: what waits is sent then."),
    ),
    "mirror_failed": Kind(
        "Clerk cannot be read",
        "A user or an organization at Clerk could not be read several times. It is tried again until it can.",
        ("Read the reason.", "If it is about one object, look at it in Clerk."),
        closes_by_itself=True,
    ),
    "overage_refused": Kind(
        "Overage refused by Stripe",
        "Stripe does not take usage that is to be billed.",
        (
            "Read the reason: a meter or a customer that is gone, or a time more than 35 days ago.",
            "Remove it, then send the organization's overage again; or bill it by hand.",
        ),
        Tile.DEAD_LETTERS,
        closes_by_itself=True,
    ),
    # Counters
    "drift": Kind(
        "Counter differed from events",
        "A counter in Redis was not the sum of its events. Reconciliation repairs it where the settings say so.",
        (
            "Read the cause, and how many units it was.",
            "Run `quotagate reconcile`: it tells whether it is still so.",
            "If it comes back, somebody else writes to Redis, or Redis lost data.",
        ),
        Tile.DRIFT,
        closes_by_itself=True,
    ),
    "overage_differs": Kind(
        "Stripe added up something else",
        "What Stripe has added up of a meter is not what it was told.",
        ("Compare both numbers at Stripe before the invoice is final.", "Correct the invoice by hand if it is late."),
        Tile.DRIFT,
        closes_by_itself=True,
    ),
    # The APIs behind the gateways
    "upstream_ejected": Kind(
        "Target of an upstream fails",
        "Gateways leave a target out: requests to it failed one after the other, or its health checks do. One request "
        "now and then tries an ejected target; once it answers, it is used again.",
        (
            "Read why, and which gateways say so: one of several is more likely a fault of the network.",
            "Look at the API at the target: does it run, does it answer in time?",
            "A target that is gone for good: take it out of the gateway's settings.",
            "Where no requests come, nobody finds out that it is well again: send one.",
        ),
        Tile.UPSTREAM_FAULTS,
        closes_by_itself=True,
    ),
    "upstream_unavailable": Kind(
        "Upstream has no target left",
        "All targets of an upstream are ejected. With a circuit breaker its requests are refused with 503, and nothing "
        "is charged; without one they are tried all the same.",
        (
            "Look at the incident of each target, which says why it is ejected.",
            "Look at what all targets share: network, database, the last release.",
        ),
        Tile.UPSTREAM_FAULTS,
        closes_by_itself=True,
    ),
    # The ledger
    "usage_quarantined": Kind(
        "Entry that is no usage event",
        "An entry of the ledger's stream could not be read. It is kept in the database, and nothing waits for it.",
        ("Look at the entry, and find out who wrote it.", "Resolve."),
        Tile.LEDGER_FAULTS,
    ),
    "usage_recovered": Kind(
        "Redis was recovered",
        "Redis restarted, failed over or forgot, and what it lacked was put back.",
        ("Read the numbers.", "Find out why Redis ended.", "Resolve."),
        Tile.LEDGER_FAULTS,
    ),
    "usage_lost": Kind(
        "Usage may be lost",
        "Takes were forgotten by Redis and by the gateways before they were written: at most so many units were given "
        "away twice.",
        (
            "Read how many takes and units it is at most.",
            "Find out why Redis lost them: docs/durability.md has the settings that bound it.",
            "Resolve.",
        ),
        Tile.LEDGER_FAULTS,
    ),
    "usage_put_back_late": Kind(
        "Usage was put back late",
        "A gateway told of takes when Redis was trusted again already. As many units may have been given away twice.",
        ("Read the numbers.", "Find out why that gateway was silent.", "Resolve."),
        Tile.LEDGER_FAULTS,
    ),
    "redis_loses": Kind(
        "Redis may lose what is charged",
        "Redis, or a replica that could be promoted, throws data away when its memory is full, or keeps no file. It "
        "was set up so after we had started.",
        (
            "Read which of the two it is, and at which server.",
            "`CONFIG SET maxmemory-policy noeviction`, or `CONFIG SET appendonly yes`, and the same in its file.",
            "Where it has evicted already, look at drift: counters are put back by their events.",
        ),
        Tile.LEDGER_FAULTS,
        closes_by_itself=True,
    ),
    "redis_sentinels_disagree": Kind(
        "Sentinels disagree",
        "Sentinels name different primaries, or another server says that it is one, too, for longer than a failover "
        "takes. The newest configuration is followed; of two that are equally new, none is.",
        (
            "Read which Sentinel names which server.",
            "Look whether that Sentinel reaches the others and the primary.",
            "One whose file names the wrong server: `SENTINEL REMOVE`, then `SENTINEL MONITOR` as the others have it.",
            "Two primaries: `REPLICAOF` at the one that the Sentinels do not name.",
        ),
        Tile.LEDGER_FAULTS,
        closes_by_itself=True,
    ),
    "redis_cluster_disagrees": Kind(
        "Servers of the Cluster disagree",
        "Servers of the Redis Cluster differ on whose a slot is, or some of them do not reach the others.",
        (
            "Read which server says what.",
            "Look whether they reach each other at the ports of the Cluster's bus.",
            "A slot that was moved halfway: end its move, by `valkey-cli --cluster fix`.",
        ),
        Tile.LEDGER_FAULTS,
        closes_by_itself=True,
    ),
    "redis_slots_unserved": Kind(
        "Slots of the Cluster are not served",
        "Requests of organizations in these slots get 503, and nothing is given away. The others go on.",
        (
            "A primary that has failed: start it again, or promote its replica by `CLUSTER FAILOVER TAKEOVER`.",
            "Slots that belong to nobody: `valkey-cli --cluster fix`.",
        ),
        Tile.LEDGER_FAULTS,
        closes_by_itself=True,
    ),
    "redis_two_primaries": Kind(
        "Two primaries at one address",
        "Connections to Redis lead to one of several primaries, so that each recovery finds another server in front. "
        "Requests get 503 until it is vouched for, and then again.",
        ("Let the address lead to one of them, and make the other its replica.",),
        Tile.LEDGER_FAULTS,
        closes_by_itself=True,
    ),
    "redis_shards_differ": Kind(
        "Redis has another number of shards",
        "Redis was installed with another `redis.shards` than this control plane's. Nothing is recovered meanwhile.",
        ("Find who has the other number, and end it. After a flush, `DEL qg:shards`; else set the number it has.",),
        Tile.LEDGER_FAULTS,
        closes_by_itself=True,
    ),
    "clock_skew": Kind(
        "Clock is off",
        "Of the clocks of a host, PostgreSQL and Redis one is off. Tokens go by the host's, periods by that of Redis: "
        "they end at another time, and a region serves the next one early, out of units that it holds in it.",
        ("Set the clock that is named, by slewing it, and let it follow a time server.",),
        Tile.LEDGER_FAULTS,
        closes_by_itself=True,
    ),
    # Several regions
    "region_away": Kind(
        "Region is away",
        "No control plane of a region was heard for a minute. The region goes on with what it holds until its leases "
        "end, and then refuses with 503. What it holds is not sold elsewhere until its Redis can be read again.",
        (
            "Does the region's control plane run, and does it reach PostgreSQL?",
            "If its Redis lives, start a control plane for it, wherever that is: what is left comes back at once.",
            "If the region is gone for good, send its clients elsewhere. What it held comes back with the next period.",
        ),
        Tile.LEDGER_FAULTS,
        closes_by_itself=True,
    ),
    "region_clock_set_back": Kind(
        "Clock of a region was set back",
        "The clock of a region's Redis went back behind the beginning of leases. They were ended, and new ones asked "
        "for; nothing was given away.",
        (
            "Let the clocks of the region's Redis servers follow a time server that slews.",
            "After a failover: compare the clocks of both servers.",
        ),
        Tile.LEDGER_FAULTS,
        closes_by_itself=True,
    ),
    # Subscriptions that nobody can read
    "stripe_price_unknown": Kind(
        "Price is in no plan",
        "A subscription has a price that stands for no plan. The organization keeps what it has.",
        ("Add the price to a plan, or move the subscription to one that is.",),
        closes_by_itself=True,
    ),
    "stripe_plans_several": Kind(
        "Two plans in one subscription",
        "A subscription has prices of several plans, and nobody can say which is meant.",
        ("Remove the price that is not meant at Stripe.",),
        closes_by_itself=True,
    ),
    "stripe_subscriptions_several": Kind(
        "Several subscriptions",
        "A customer has several subscriptions. The best one counts, and all of them are paid.",
        ("Ask the customer, and cancel what is not wanted at Stripe.",),
        closes_by_itself=True,
    ),
    "stripe_word_unknown": Kind(
        "Unknown word of Stripe",
        "Stripe says something of a subscription that this release does not know. Nothing was taken away.",
        ("Look for a newer release.", "Look at the subscription at Stripe."),
        closes_by_itself=True,
    ),
    "stripe_customer_unknown": Kind(
        "Customer of no organization",
        "A customer at Stripe pays, and no organization here is linked with it.",
        ("Find out whose it is, and link the customer with the organization.",),
        closes_by_itself=True,
    ),
    "stripe_customer_conflict": Kind(
        "Two customers of one organization",
        "A second customer at Stripe names an organization that has one already.",
        ("Decide which one pays, and unlink the other.",),
        closes_by_itself=True,
    ),
    "stripe_key_refused": Kind(
        "Stripe refuses the key",
        "The key of Stripe lacks a permission, or is not good any more. Events wait until it is.",
        ("Give the key the permission that the reason names, or set another key.",),
        closes_by_itself=True,
    ),
    "stripe_wrong_mode": Kind(
        "Event of the other mode",
        "Stripe sent an event of its test mode to a live installation, or the other way round.",
        ("Correct the address of the webhook at Stripe.", "Resolve."),
    ),
    "stripe_meter_errors": Kind(
        "Meter refused usage at Stripe",
        "Stripe took usage and could not count it afterwards.",
        ("Read Stripe's report of the meter.", "Correct the invoice by hand if it is late.", "Resolve."),
    ),
    "overage_late": Kind(
        "Usage came after its invoice",
        "Usage beyond the plan was known only when its period's invoice was final. It is on the next one.",
        ("Tell the customer, or give it for free by a credit.", "Resolve."),
    ),
    "overage_unbilled": Kind(
        "Overage was not billed",
        "A subscription ended before its time, and what was used beyond the plan is on no invoice.",
        ("Read units and amount.", "Bill it by hand, or let it go.", "Resolve."),
        closes_by_itself=True,
    ),
    # Access
    "key_leaked": Kind(
        "API key found in public",
        "An API key was found in a public place.",
        (
            "Look at the address where it was found.",
            "Roll the key, or revoke it at once.",
            "Tell the customer.",
            "Resolve, where the settings had the key revoked as it was found.",
        ),
        closes_by_itself=True,
    ),
    "site_cloned": Kind(
        "Site was copied",
        "Two sites use one activation: a copy runs on another domain.",
        ("Ask the customer which one is meant.", "Revoke the other, or let it be a staging site."),
        closes_by_itself=True,
    ),
    "signing_key_unreadable": Kind(
        "Signing key cannot be opened",
        "A private signing key does not open with the master key that is set, so no tokens are issued.",
        ("Set the master key with which it was sealed.",),
        closes_by_itself=True,
    ),
    "mirror_key_refused": Kind(
        "Clerk refuses the key",
        "The key of Clerk is not good any more, so changes of people do not arrive.",
        ("Set another key.",),
        closes_by_itself=True,
    ),
    "mirror_deleted_subscribed": Kind(
        "Deleted at Clerk, and still pays",
        "An organization was deleted at Clerk while its subscription goes on.",
        ("Cancel the subscription, or restore the organization.",),
        closes_by_itself=True,
    ),
}


def kinds_of(tile: Tile) -> list[str]:
    """The kinds of incidents that a tile is about."""
    return [name for name, kind in KINDS.items() if kind.tile is tile]


def kind_of(name: str) -> Kind:
    """What is known of it; of an earlier release's, that it is an incident."""
    known = KINDS.get(name)
    return known or Kind(
        name.replace("_", " ").capitalize(),
        "This release opens no incident of this kind.",
        ("Read what it tells.", "Resolve."),
    )
