from datetime import UTC, datetime

import pytest

from control.http.context import Context
from tests.control.plane import MovedClock


@pytest.fixture(autouse=True)
async def no_history_of_the_test_before(context: Context) -> None:
    async with context.db.connection() as connection:
        await connection.execute("DELETE FROM mrr_movement")
        await connection.execute("DELETE FROM subscription_history")


@pytest.fixture
def a_day_in_november(clock: MovedClock) -> None:
    """Today stays the same."""
    clock.now = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
