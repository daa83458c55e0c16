"""Figures leave as CSV and Parquet, the same as in JSON; what is asked wrong is refused by its name."""

import builtins
import csv
import io
from datetime import UTC, datetime
from typing import Any

import pytest
from httpx import AsyncClient
from pyarrow import parquet

from control.api.exports import csv_of
from control.http.context import Context
from tests.control.analytics.worth import State, keep, monthly
from tests.control.plane import TokenOf

pytestmark = pytest.mark.usefixtures("a_day_in_november")

PATHS = ("mrr", "movements", "retention", "cohorts", "trials", "subscriptions")
ROWS = {"mrr": "currencies", "movements": "movements", "retention": "months", "cohorts": "cohorts",
        "trials": "months", "subscriptions": "subscriptions"}  # fmt: skip


@pytest.fixture
async def some(context: Context) -> None:
    at = datetime(2026, 10, 3, 12, tzinfo=UTC)
    async with context.db.connection() as connection:
        await keep(
            connection,
            [
                *(State(f"e{n}", f"sub_e{n}", at, items=(monthly(10 + n),), plan="=cmd()") for n in range(5)),
                State("t", "sub_t", at, "trialing", (monthly(10),)),
            ],
        )


@pytest.mark.parametrize("path", PATHS)
async def test_csv_and_parquet_have_the_rows_that_json_has(admin: AsyncClient, some: None, path: str) -> None:
    answer = (await admin.get(f"/v1/analytics/{path}", params={"currency": "usd"} if path != "mrr" else {})).json()
    rows = answer[ROWS[path]]
    if path == "mrr":
        rows = [row for each in rows for row in each["definitions"]]
    assert rows
    query = {} if path == "mrr" else {"currency": "usd"}
    response = await admin.get(f"/v1/analytics/{path}", params={**query, "format": "parquet"})
    assert response.headers["content-type"] == "application/vnd.apache.parquet"
    assert response.headers["content-disposition"] == f'attachment; filename="{path}.parquet"'
    table = parquet.read_table(io.BytesIO(response.content))
    assert table.column_names == list(rows[0])
    assert [same(row) for row in table.to_pylist()] == [same(row) for row in rows]
    response = await admin.get(f"/v1/analytics/{path}", params={**query, "format": "csv"})
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    listed = list(csv.DictReader(io.StringIO(response.text)))
    assert len(listed) == len(rows)
    assert all(row[name] == text(rows[n][name]) for n, row in enumerate(listed) for name in row)


def same(row: dict[str, Any]) -> dict[str, Any]:
    return {name: text(value).replace("+00:00", "Z") for name, value in row.items()}


def text(value: Any) -> str:
    """As a cell of CSV."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str) and value.startswith("="):
        return f"'{value}"
    if isinstance(value, str) and value.endswith("Z"):
        return value.replace("Z", "+00:00")
    return str(value)


def test_a_name_that_looks_like_a_formula_is_none_in_a_spreadsheet_and_a_number_stays_one() -> None:
    names = ["=1+1", "@x", "-5", "-5.25", "-5+cmd", "+49 30", "plain, quoted"]
    lines = csv_of(["name"], [{"name": each} for each in names]).splitlines()
    assert lines == ["name", "'=1+1", "'@x", "-5", "-5.25", "'-5+cmd", "'+49 30", '"plain, quoted"']


async def test_an_export_that_is_longer_than_its_limit_names_the_next_row(admin: AsyncClient, some: None) -> None:
    query = {"figure": "mrr", "currency": "usd", "format": "csv", "limit": "3"}
    first = await admin.get("/v1/analytics/subscriptions", params=query)
    following = first.headers["quotagate-next"]
    second = await admin.get("/v1/analytics/subscriptions", params={**query, "after": following})
    names = [row["org"] for each in (first, second) for row in csv.DictReader(io.StringIO(each.text))]
    assert names == [f"e{n}" for n in range(5)]
    assert "quotagate-next" not in second.headers


async def test_without_pyarrow_parquet_is_not_implemented_and_the_answer_says_what_helps(
    admin: AsyncClient, some: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_ = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "pyarrow":
            raise ImportError(name)
        return import_(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    response = await admin.get("/v1/analytics/movements", params={"format": "parquet"})
    assert (response.status_code, "quotagate[parquet]" in response.json()["detail"]) == (501, True)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("movements", {"definition": "profitwell"}),
        ("movements", {"currency": "USD"}),
        ("movements", {"from": "2026-02-30"}),
        ("movements", {"from": "1700000000"}),
        ("movements", {"from": "2026-03-01", "to": "2026-03-01"}),
        ("movements", {"from": "1980-01-01", "to": "2026-03-01"}),
        ("movements", {"from": "2024-01-01", "to": "2026-03-01", "bucket": "day"}),
        ("movements", {"bucket": "week"}),
        ("movements", {"format": "xlsx"}),
        ("movements", {"until": "2026-01-01"}),
        ("mrr", {"day": "9999-12-31"}),
        ("subscriptions", {"figure": "arr"}),
        ("subscriptions", {"after": "nothing"}),
        ("subscriptions", {"after": "2026-01-01/acme/sub_1"}),
        ("subscriptions", {"figure": "new", "after": "acme/sub_1"}),
        ("subscriptions", {"figure": "new", "after": "2026-02-30/acme/sub_1"}),
        ("subscriptions", {"after": "ac\x00me/sub_1"}),
        ("subscriptions", {"limit": "0"}),
    ],
)
async def test_what_is_asked_wrong_is_refused_by_its_name(admin: AsyncClient, path: str, query: dict[str, str]) -> None:
    response = await admin.get(f"/v1/analytics/{path}", params=query)
    assert response.status_code == 422, response.text
    assert response.json()["errors"][0]["field"].removeprefix("query.") in query


async def test_nothing_was_ever_sold_is_an_answer_too(admin: AsyncClient) -> None:
    for path in PATHS:
        response = await admin.get(f"/v1/analytics/{path}")
        assert response.status_code == 200, response.text
    assert (await admin.get("/v1/analytics/mrr")).json()["currencies"] == []
    retention = (await admin.get("/v1/analytics/retention")).json()
    assert {row["nrr"] for row in retention["months"]} == {None}


async def test_organizations_do_not_see_what_the_vendor_earns(admin: AsyncClient, token_of: TokenOf) -> None:
    for path in PATHS:
        response = await admin.get(f"/v1/analytics/{path}", headers={"authorization": f"Bearer {token_of('acme')}"})
        assert response.status_code == 403
