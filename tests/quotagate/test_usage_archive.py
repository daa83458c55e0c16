"""`quotagate usage archive` says which days it left alone, whatever day it was asked for."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from typer.testing import CliRunner

from quotagate.main import app


@pytest.mark.parametrize("days_ahead", [0, 1, 400])
def test_today_and_yesterday_stay_and_that_is_told(postgres_dsn: str, tmp_path: Path, days_ahead: int) -> None:
    before = datetime.now(UTC).date()
    asked = f"{before + timedelta(days=days_ahead):%Y-%m-%d}"
    arguments = ["usage", "archive", "--before", asked, "--dir", str(tmp_path), "--dsn", postgres_dsn]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    yesterdays = {f"{day - timedelta(days=1):%Y-%m-%d}" for day in (before, datetime.now(UTC).date())}
    assert any(f"{day} (yesterday) and later stay" in result.output for day in yesterdays)
    assert any(f"No day before {day} is in the database." in result.output for day in yesterdays)


def test_a_day_that_is_long_gone_needs_no_such_word(postgres_dsn: str, tmp_path: Path) -> None:
    arguments = ["usage", "archive", "--before", "2020-01-01", "--dir", str(tmp_path), "--dsn", postgres_dsn]
    result = CliRunner().invoke(app, arguments)
    assert "stay" not in result.output
    assert "No day before 2020-01-01 is in the database." in result.output


async def test_days_are_told_to_programs_as_they_are_to_people(postgres_dsn: str, tmp_path: Path) -> None:
    connection = await asyncpg.connect(postgres_dsn)
    await connection.execute("SELECT create_usage_event_day('2020-01-02')")
    await connection.close()

    def told(*arguments: str) -> list[dict[str, object]]:
        # The command has an event loop of its own, so it runs in a thread.
        result = CliRunner().invoke(app, ["usage", *arguments, "--dsn", postgres_dsn, "--json"])
        assert (result.exit_code, result.stderr) == (0, ""), result.output + repr(result.exception)
        return [json.loads(line) for line in result.stdout.splitlines()]

    listed = await asyncio.to_thread(told, "list")
    assert "2020-01-02" in [day["day"] for day in listed if day["file"] is None]
    words = ("archive", "--before", "2020-01-03", "--dir", str(tmp_path), "--dry-run")
    [would] = await asyncio.to_thread(told, *words)
    assert (would["day"], would["file"]) == ("2020-01-02", None)
    [archived] = await asyncio.to_thread(told, "archive", "--before", "2020-01-03", "--dir", str(tmp_path))
    assert (archived["day"], archived["events"]) == ("2020-01-02", 0)
    [restored] = await asyncio.to_thread(told, "restore", str(archived["file"]))
    assert restored["day"] == "2020-01-02"
    [again] = [day for day in await asyncio.to_thread(told, "list") if day["day"] == "2020-01-02"]
    assert str(again["restored_at"]).endswith("Z")
