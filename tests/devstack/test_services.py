"""The servers of the embedded stack, as every other test relies on them."""

from pathlib import Path

import asyncpg
import pytest
import redis

from devstack import postgres, valkey
from devstack.child import StackError, stopping
from devstack.ports import free_port


def test_valkey_is_empty_at_the_start_of_a_test(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        assert client.info("server")["server_name"] == "valkey"


def test_valkey_keeps_its_keys_through_an_orderly_stop(tmp_path: Path) -> None:
    port = free_port()
    for run in (1, 2):
        with stopping(valkey.start(tmp_path / "data", port, log=tmp_path / "valkey.log")) as child:
            valkey.wait_ready(child, port)
            with redis.Redis.from_url(valkey.url(port)) as client:
                assert client.incr("runs") == run


async def test_the_postgres_address_works_as_it_is_pasted(postgres_server: str) -> None:
    assert postgres.execute(postgres_server, "SHOW server_encoding") == "UTF8"
    connection = await asyncpg.connect(postgres_server)
    assert await connection.fetchval("SHOW timezone") == "UTC"
    await connection.close()


def test_postgres_survives_a_crash(stack_directory: Path) -> None:
    directory, port, log = stack_directory / "crashing", free_port(), stack_directory / "crashing.log"
    server = postgres.start(directory, port, log=log)
    with stopping(server.child):
        server.wait_ready()
        postgres.execute(server.dsn("postgres"), "CREATE TABLE kept AS SELECT 1 AS row")
        server.child.process.kill()
        server.child.process.wait()
    restarted = postgres.start(directory, port, log=log)
    with stopping(restarted.child):
        restarted.wait_ready()
        assert postgres.execute(restarted.dsn("postgres"), "SELECT row FROM kept") == "1"


def test_a_database_cluster_made_half_way_is_made_anew(stack_directory: Path) -> None:
    home = stack_directory / "half-made"
    (home / "unfinished").mkdir(parents=True)
    (home / "unfinished" / "PG_VERSION").write_text("18\n")
    server = postgres.start(home, free_port(), log=stack_directory / "half-made.log", durable=False)
    with stopping(server.child):
        server.wait_ready()


def test_a_statement_that_fails_says_why(postgres_server: str) -> None:
    with pytest.raises(StackError, match='relation "nothing" does not exist'):
        postgres.execute(postgres_server, "SELECT * FROM nothing")
