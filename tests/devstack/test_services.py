"""The parts of the embedded stack, as every other test relies on them."""

import redis

from devstack import postgres


def test_valkey_answers_and_is_empty_at_the_start_of_a_test(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        assert client.info("server")["server_name"] == "valkey"


def test_the_postgres_address_works_as_it_is_pasted(postgres_server: str) -> None:
    assert postgres.execute(postgres_server, "SHOW server_encoding") == "UTF8"
