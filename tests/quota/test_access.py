"""access: texts and records that are published are read back as they were written, and what is none is refused."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quota import access, keys
from quota.access import (
    KeyRecord,
    KeyState,
    Mark,
    MarkKind,
    Path,
    Quota,
    RecordMalformed,
    mark_value,
    pack_record,
    refuses,
    unpack_record,
)
from quota.model import RateLimit

KEY_ID = "Zk3aaaaaaaaa"
key_ids = st.from_regex(r"[A-Za-z0-9]{12}", fullmatch=True)
orgs = st.from_regex(keys.ORG_PATTERN, fullmatch=True).filter(keys.is_org)
users = st.text(min_size=1, max_size=60).filter(lambda user: access.encoded_user(user) is not None)
quotas = st.lists(
    st.builds(
        Quota,
        st.from_regex(keys.METER_PATTERN, fullmatch=True).filter(keys.is_meter),
        st.integers(0, 10**15),
        st.integers(0, 366 * 86_400),
    ),
    max_size=4,
    unique_by=lambda q: (q.meter, q.window_seconds),
).map(tuple)
records = st.builds(
    KeyRecord,
    id=key_ids,
    state=st.sampled_from(KeyState),
    expires_s=st.none() | st.integers(1, 2**40 - 1),
    environment=st.sampled_from(["live", "test", "staging_2"]),
    user=st.none() | st.text(st.characters(exclude_characters="\x1f", codec="utf-8"), min_size=1, max_size=128),
    scopes=st.lists(st.from_regex(r"(route|meter|method):[!-~]{1,64}", fullmatch=True), max_size=3).map(tuple),
    networks=st.lists(st.sampled_from(["192.0.2.0/24", "2001:db8::/32", "198.51.100.7"]), max_size=3).map(tuple),
    quotas=quotas,
    rate=st.none() | st.builds(RateLimit, st.integers(1, 10**6), st.floats(0.001, 86_400), st.integers(1, 10**6)),
)


@given(records)
def test_a_record_is_read_back_as_it_was_packed(record: KeyRecord) -> None:
    assert unpack_record(pack_record(record)) == record


@given(records, st.binary(max_size=6), st.data())
def test_a_damaged_record_is_read_as_another_or_refused_as_malformed(
    record: KeyRecord, noise: bytes, data: st.DataObject
) -> None:
    packed = pack_record(record)
    at = data.draw(st.integers(0, len(packed)))
    with suppress(RecordMalformed):
        damaged = unpack_record(packed[:at] + noise + packed[at + len(noise) :])
        assert unpack_record(pack_record(damaged)) == damaged


def test_a_plain_key_has_a_record_of_14_bytes() -> None:
    assert len(pack_record(KeyRecord(KEY_ID))) == 14


def test_a_record_of_a_newer_form_is_refused_and_not_misread() -> None:
    with pytest.raises(RecordMalformed, match="newer"):
        unpack_record(b"\x02" + pack_record(KeyRecord(KEY_ID))[1:])


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "short"},
        {"id": "with-a-dash1"},
        {"expires_s": 0},
        {"environment": "Live"},
        {"user": ""},
        {"user": "a\x1fb"},
        {"scopes": ("everything",)},
        {"scopes": ("route:a b",)},
        {"networks": ("192.0.2.1/24",)},
        {"quotas": (Quota("API", 1),)},
        {"quotas": (Quota("api_calls", -1),)},
        {"quotas": (Quota("api_calls", 1, -1),)},
        {"quotas": (Quota("api_calls", 1, 60), Quota("api_calls", 2, 60))},
    ],
    ids=str,
)
def test_what_cannot_be_published_of_a_key_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        KeyRecord(**{"id": KEY_ID, **wrong})  # type: ignore[arg-type]  # that is what is tested


@given(orgs, st.none() | users, st.none() | key_ids)
def test_a_path_is_read_back_as_it_was_written(org: str, user: str | None, key: str | None) -> None:
    path = Path(org, user, key)
    assert Path.parse(str(path)) == path
    assert access.org_of(str(path)) == org
    access.check_path(str(path))


@pytest.mark.parametrize("user", ["", "x" * 129, "ä" * 22, "a\0b", "\ud800"], ids=ascii)
def test_a_user_that_no_event_could_hold_is_left_out_of_the_path(user: str) -> None:
    assert str(Path("acme", user, KEY_ID)) == f"acme/k:{KEY_ID}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "acme/",
        "/u:7",
        "acme/u:",
        "acme/k:short",
        f"acme/k:{KEY_ID}/u:7",
        f"acme/k:{KEY_ID}\n",
        "acme/u:a b",
        "acme/u:%zz",
        "acme/u:%41",
        "acme/u:%FF",
        "acme/u:%00",
        "acme/u:" + "x" * 129,
        "acme/u:" + "%C3%A4" * 22,
        "acme/t:red",
    ],
)
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"path|user"):
        access.check_path(text)


@given(st.text(max_size=100), st.text(max_size=100), st.sampled_from(MarkKind), st.sampled_from(MarkKind))
def test_two_marks_have_one_field_only_if_they_are_the_same(a: str, b: str, of_a: MarkKind, of_b: MarkKind) -> None:
    assert (Mark(of_a, a).field == Mark(of_b, b).field) == ((of_a, a) == (of_b, b))
    assert len(Mark(of_a, a).field) <= 80


@pytest.mark.parametrize(
    ("until_s", "issued_at", "refused"),
    [(None, None, True), (None, 5, True), (100, None, True), (100, 99, True), (100, 100.9, True), (100, 101, False)],
)
def test_a_mark_refuses_what_was_issued_up_to_its_second(
    until_s: int | None, issued_at: float | None, refused: bool
) -> None:
    assert refuses(mark_value(until_s), issued_at) is refused


def test_the_limits_of_a_key_go_into_the_version_word() -> None:
    quotas = (Quota("api_calls", 100, 3600), Quota("tokens", 5), Quota("api_calls", 900, 86_400))
    record = KeyRecord(KEY_ID, quotas=quotas, rate=RateLimit(10, 1, 3))
    word = access.version_word(7, [record.limits])
    assert word == f"7 k:{KEY_ID} @100000.0,300000.0 api_calls=3600:100,86400:900 tokens=0:5"
    assert access.version_word(7, [KeyRecord(KEY_ID).limits]) == access.version_word(7) == "7"
