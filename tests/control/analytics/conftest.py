import pytest

from control.http.context import Context


@pytest.fixture(autouse=True)
async def no_history_of_the_test_before(context: Context) -> None:
    async with context.db.connection() as connection:
        await connection.execute("DELETE FROM mrr_movement")
        await connection.execute("DELETE FROM subscription_history")
