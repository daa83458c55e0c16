"""look and the version word: who may use an organization is published, and what is remembered of it runs out."""

from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from quota import keys
from quota.access import AccessChanges, KeyRecord, KeyState, Mark, MarkKind, digest16, marks_of, version_word
from quota.calls.look import LOOK_REPLIES, IndexMiss, decode_look, look_bytes, owner_bytes
from quota.calls.take import Take, decode_take, take_call
from quota.ledger import AccessBehind
from quota.model import Admitted, Decision, MeterLimit, NotEntitled, Stale, Status, Unknown
from tests.quota.books import Books, expect

KEY, OTHER = digest16("qg_live_one"), digest16("qg_live_two")
ONE, TWO = KeyRecord("keyNumberOne"), KeyRecord("keyNumberTwo")
USER = Mark(MarkKind.USER, "7")


async def publish(books: Books, access: AccessChanges | None = None, **terms: Any) -> bool:
    return await books.ledger.publish(books.entitlement(**terms), access=access)


async def take(books: Books, version: str, **charges: int) -> Decision:
    request_id = next(books.request_ids)
    charges = charges or {"api_calls": 1}
    call = take_call([Take(books.org, request_id, charges, version=version)], books.ledger.shards)
    [reply] = await books.ledger.run(call)
    if isinstance(reply, ResponseError):
        raise reply
    return decode_take(reply, list(charges))


@pytest.mark.parametrize("charges", [{"api_calls": 1}, {"api_calls": 1, "tokens": 1}], ids=["plain", "general"])
async def test_a_take_that_says_the_published_version_is_decided_and_any_other_is_stale(
    books: Books, charges: dict[str, int]
) -> None:
    await books.publish(version=2**53 - 2, meters=(MeterLimit("api_calls", 10), MeterLimit("tokens", 10)))
    assert isinstance(await take(books, version_word(2**53 - 2), **charges), Admitted)
    assert isinstance(await take(books, "", **charges), Admitted)
    async with books.unchanged():
        for other in (0, 1, 2**53 - 3, 2**53 - 1):
            assert await take(books, version_word(other), **charges) == Stale(2**53 - 2)


async def test_a_stale_take_is_said_so_before_any_other_refusal_but_that_of_an_unknown_organization(
    books: Books,
) -> None:
    assert await take(books, "1") == Unknown(lapsed=False)
    await books.publish(status=Status.SUSPENDED)
    assert await take(books, "2", tokens=10**12) == Stale(1)
    assert await take(books, "1") == NotEntitled(Status.SUSPENDED)


@pytest.mark.parametrize("word", ["x", "1x", " ", "k:keyNumberOne", "1.5 k:keyNumberOne"])
async def test_what_is_no_version_word_is_an_error_and_charges_nothing(books: Books, word: str) -> None:
    await books.publish()
    async with books.unchanged():
        with pytest.raises(ResponseError, match="version word"):
            await take(books, word)


async def test_every_change_of_access_makes_what_was_remembered_stale(books: Books) -> None:
    await publish(books, AccessChanges(None, {KEY: ONE}))
    seen = await books.ledger.look(books.org, KEY)
    assert (seen.version, seen.record, seen.marks) == (1, ONE, {})
    assert isinstance(await take(books, version_word(1)), Admitted)
    revoked = KeyRecord(ONE.id, KeyState.REVOKED)
    await publish(books, AccessChanges(1, {KEY: revoked}))
    assert await take(books, version_word(1)) == Stale(2)
    again = await books.ledger.look(books.org, KEY)
    assert (again.version, again.record) == (2, revoked)


async def test_an_older_publication_never_puts_an_old_record_back(books: Books) -> None:
    await books.ledger.publish(books.entitlement(version=5), access=AccessChanges(None, {KEY: ONE}))
    await books.ledger.publish(
        books.entitlement(version=7), access=AccessChanges(5, marks={USER: None}, dropped=frozenset({KEY}))
    )
    for version in (6, 7):
        for since in (None, 5):
            changes = AccessChanges(since, {KEY: ONE}, lifted=frozenset({USER}))
            assert not await books.ledger.publish(books.entitlement(version=version), access=changes)
    seen = await books.ledger.look(books.org, KEY, marks_of(user="7"))
    assert (seen.version, seen.record, seen.marks) == (7, None, {USER: b""})


async def test_changes_are_added_and_all_of_access_replaces_what_was_there(books: Books) -> None:
    marks = marks_of(token_id="t", user="7")
    token = Mark(MarkKind.TOKEN, "t")
    await publish(books, AccessChanges(None, {KEY: ONE}, {USER: 100}))
    await publish(books, AccessChanges(1, {OTHER: TWO}, {token: None}))
    for digest, record in ((KEY, ONE), (OTHER, TWO)):
        seen = await books.ledger.look(books.org, digest, marks)
        assert (seen.record, seen.marks) == (record, {USER: b"100", token: b""})
    assert seen.refused_by(50) == token
    await publish(books, AccessChanges(2, dropped=frozenset({KEY}), lifted=frozenset({token})))
    seen = await books.ledger.look(books.org, KEY, marks)
    assert (seen.record, seen.marks, seen.refused_by(100), seen.refused_by(101)) == (None, {USER: b"100"}, USER, None)
    await publish(books, AccessChanges(None, {KEY: ONE}))
    assert (await books.ledger.look(books.org, OTHER, marks)).record is None
    assert (await books.ledger.look(books.org, KEY, marks)).marks == {}
    await publish(books)
    assert (await books.ledger.look(books.org, KEY)).record == ONE


async def test_changes_since_a_version_that_redis_does_not_have_are_not_installed(books: Books) -> None:
    await books.publish(version=3)
    before = await books.redis.dump(books.hash)
    with pytest.raises(AccessBehind):
        await books.ledger.publish(books.entitlement(version=7), access=AccessChanges(5, {KEY: ONE}))
    assert await books.redis.dump(books.hash) == before
    assert (await books.ledger.look(books.org, KEY)).record is None
    assert await books.ledger.publish(books.entitlement(version=7), access=AccessChanges(3, {KEY: ONE}))


@pytest.mark.parametrize("count", [2_000, 2_001, 10_000])
async def test_thousands_of_keys_are_published_at_once(books: Books, count: int) -> None:
    access_key = keys.access_key(books.org, books.ledger.shards)
    await publish(books, AccessChanges(None, {KEY: ONE}, {USER: None}))
    records = {digest16(str(n)): KeyRecord(f"key{n:09d}") for n in range(count)}
    await publish(books, AccessChanges(None, records))
    assert await books.redis.hlen(access_key) == count
    assert await books.redis.ttl(access_key) == -1
    for n in (0, 1999, count - 1):
        assert (await books.ledger.look(books.org, digest16(str(n)))).record == records[digest16(str(n))]
    await publish(books, AccessChanges(books.version, records | {KEY: ONE}))
    assert await books.redis.hlen(access_key) == count + 1
    await publish(books, AccessChanges(None, {KEY: ONE}))
    assert await books.redis.hlen(access_key) == 1


async def test_thousands_of_keys_that_are_not_newer_leave_nothing_behind(books: Books) -> None:
    access_key = keys.access_key(books.org, books.ledger.shards)
    await publish(books, AccessChanges(None, {KEY: ONE}))
    before = await books.redis.dump(access_key)
    records = {digest16(str(n)): KeyRecord(f"key{n:09d}") for n in range(3_000)}
    assert not await books.ledger.publish(books.entitlement(version=1), access=AccessChanges(None, records))
    assert await books.redis.dump(access_key) == before
    assert [name async for name in books.redis.scan_iter("*access*")] == [access_key.encode()]


async def test_a_look_at_an_organization_that_redis_does_not_know_has_no_version(books: Books) -> None:
    seen = await books.ledger.look(books.org, KEY, marks_of("t", "s", "u", "w"))
    assert (seen.version, seen.record, seen.marks) == (None, None, {})


async def test_shadow_mode_is_published_with_its_version_and_ends_with_one_that_lacks_it(books: Books) -> None:
    for shadow in (False, True, True, False):
        await publish(books, shadow=shadow)
        seen = await books.ledger.look(books.org)
        assert (seen.version, seen.shadow) == (books.version, shadow)
        assert (await books.snapshot()).shadow is shadow
        assert (await books.ledger.recall(books.org, ["one"])).shadow is shadow
    await books.publish(version=0, shadow=True)  # it is not newer
    assert not (await books.ledger.look(books.org)).shadow


async def test_a_miss_in_the_index_is_believed_only_while_the_index_is_complete(books: Books) -> None:
    shard = keys.shard_of_digest(KEY, books.ledger.shards)
    assert await books.ledger.owner(KEY) is IndexMiss.INCOMPLETE
    assert not await books.ledger.mark_index(shard, "run:1:a")
    await books.redis.set(keys.generation_key(shard), "run:1:a")
    assert await books.ledger.owner(KEY) is IndexMiss.INCOMPLETE
    assert await books.ledger.mark_index(shard, "run:1:a")
    assert await books.ledger.index_complete(shard)
    assert await books.ledger.owner(KEY) is IndexMiss.NO_KEY
    await publish(books, AccessChanges(None, {KEY: ONE}))
    assert await books.ledger.owner(KEY) == books.org
    await books.redis.set(keys.generation_key(shard), "run:2:b")
    assert await books.ledger.owner(KEY) == books.org  # an entry never changes its meaning
    await books.ledger.unindex([KEY])
    assert await books.ledger.owner(KEY) is IndexMiss.INCOMPLETE
    assert not await books.ledger.mark_index(shard, "run:1:a")  # filled before the memory was lost


async def test_the_bytes_of_a_look_say_the_same_as_the_client(books: Books, redis_url: str) -> None:
    await publish(books, AccessChanges(None, {KEY: ONE}, {USER: None}))
    marks = marks_of(user="7", session="s")
    async with Redis.from_url(redis_url) as redis:
        connection = await redis.connection_pool.get_connection()
        await connection.send_packed_command(look_bytes(books.org, KEY, books.ledger.shards, marks))
        await connection.send_packed_command(owner_bytes(KEY, books.ledger.shards))
        replies = [await connection.read_response() for _ in range(LOOK_REPLIES + 1)]
        await redis.connection_pool.release(connection)
    published, values, owner = replies
    seen = decode_look(expect(list, published), expect(list, values), KEY, marks)
    assert seen == await books.ledger.look(books.org, KEY, marks)
    assert owner[2] == b"acme"
