"""What the gateway sends for a take, made of parts, is the call that everyone else sends: byte for byte."""

from hypothesis import given
from hypothesis import strategies as st

from quota.access import version_word
from quota.calls.encoded import (
    BOOKS_KEYS,
    IDEMPOTENT_KEYS,
    REQUEST_ID_BYTES,
    TAKE_ARGV,
    books_bulk,
    by_digest,
    by_text,
    encode_charges,
    idempotency_bulk,
    join_takes,
    keyed,
    principal_bulk,
)
from quota.calls.take import Take, take_call
from quota.keys import METER_PATTERN, ORG_PATTERN, SHARDS_MAX
from quota.model import COST_MAX

takes = st.builds(
    Take,
    org=st.from_regex(ORG_PATTERN.replace("$", r"\Z")),
    request_id=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=20, max_size=REQUEST_ID_BYTES),
    charges=st.dictionaries(
        st.from_regex(METER_PATTERN.replace("$", r"\Z")), st.integers(0, COST_MAX), min_size=1, max_size=12
    ),
    idempotency=st.none() | st.from_regex(r"[A-Za-z0-9_-]{22}\Z"),
    reported=st.just(False),  # no gateway sends these
    path=st.none(),
    version=st.just("") | st.integers(0, 2**53 - 1).map(version_word),
)


@given(st.lists(takes, min_size=1, max_size=8), st.integers(1, SHARDS_MAX))
def test_a_take_made_of_parts_is_byte_for_byte_the_call_of_everyone_else(some: list[Take], shards: int) -> None:
    keys_bulks, argv_bulks, key_count, argv_count = [], [], 0, 0
    for take in some:
        charges = encode_charges(take.charges)
        keys_bulk, charge_bulk = books_bulk(take.org, shards), charges.bulk
        if take.idempotency is not None:
            keys_bulk += idempotency_bulk(take.org, shards, take.idempotency)
            charge_bulk = keyed(charge_bulk)
        keys_bulks.append(keys_bulk)
        argv_bulks.append(TAKE_ARGV % (take.request_id.encode(), principal_bulk(take.org, take.version), charge_bulk))
        key_count += BOOKS_KEYS if take.idempotency is None else IDEMPOTENT_KEYS
        argv_count += charges.argv_count
    batch = join_takes(keys_bulks, key_count, argv_bulks, argv_count)
    assert batch.by_digest() == by_digest(take_call(some, shards))
    assert batch.by_text() == by_text(take_call(some, shards))
