"""Which modules are compiled. The builder, the finder and the tests read it here."""

from typing import Final

PACKAGES: Final = ("common", "gateway", "identity", "quota")
"""All of their sources decide whether what was built is used: constants of plain modules are part of compiled ones."""

_CONTENTS: Final = {
    "common": "request_target transitions",
    "common.otlp": "spans wire",
    "gateway.client": "awaited body_parser client_connection dates flow head_reader request_fields"
    " request_reader sockets states upgrades",
    "gateway.cluster": "links node_place",
    "gateway.decision": "authentication charge corrections decisions exhausted idempotency looks naming"
    " refusals replies",
    "gateway.exchange": "absent body exchange forwarding heads refusals",
    # Not `codings`: its time is that of zlib, brotli and zstd.
    "gateway.http": "boundaries cors deadlines framing head headers lines trace websocket",
    "gateway.ledger": "durability link permits receipts settlements takes unsent",
    "gateway.metering": "costs json_path reported",
    "gateway.observe": "access_log finished record recorded refused spans tally",
    "gateway.redis": "connection pauses",
    "gateway.routing": "destinations edits forwarded routes token_sources",
    "gateway.tunnel": "batches charges sides tunnel",
    "gateway.upstream": "balancer ejection pool",
    "gateway.upstream.connection": "answer answer_reader carried framing known_answers remainder reuse states unread"
    " upstream_connection",
    "identity": "api_key bearer claims issuer jws refusals requirements restrictions tokens",
    "quota": "keys model periods problems refusals wire",
    "quota.calls": "call corrections encoded permits replay take",
}

HOT: Final = tuple(f"{package}.{name}" for package, names in _CONTENTS.items() for name in names.split())
