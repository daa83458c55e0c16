"""Rows of an answer as CSV or Parquet, for who computes with them elsewhere."""

import asyncio
import csv
import io
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final, Literal, get_args

from pydantic import BaseModel
from starlette.responses import Response

from control.http.refusals import Refusal
from quota import problems

Format = Literal["json", "csv", "parquet"]

CSV: Final = "text/csv; charset=utf-8"
PARQUET: Final = "application/vnd.apache.parquet"
NEXT: Final = "Quotagate-Next"
"""The field that tells `after` of the next page where the body has no place for it."""

EXPORTED: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "content": {
            "text/csv": {"schema": {"type": "string"}},
            PARQUET: {"schema": {"type": "string", "format": "binary"}},
        }
    }
}
"""For endpoints: how an export looks in the OpenAPI document."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


async def exported(
    format_: Format, name: str, model: type[BaseModel], rows: Sequence[BaseModel], after: str | None = None
) -> Response:
    """The rows as a file. `model`: what all of them are. Raises Refusal."""
    headers = {"Content-Disposition": f'attachment; filename="{name}.{format_}"'}
    if after is not None:
        headers[NEXT] = after
    values = [each.model_dump() for each in rows]
    if format_ == "csv":
        return Response(csv_of(list(model.model_fields), values), headers=headers, media_type=CSV)
    # A table of 100,000 rows takes some hundred milliseconds, which others need not wait for.
    body = await asyncio.to_thread(parquet_of, model, values)
    return Response(body, headers=headers, media_type=PARQUET)


def csv_of(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """RFC 4180, with a header."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    writer.writerows([_cell(row[name]) for name in columns] for row in rows)
    return out.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime | date):
        return value.isoformat()
    # A name that an organization gave itself is no formula in its vendor's spreadsheet.
    if isinstance(value, str) and value.startswith(_FORMULA) and not _is_number(value):
        return f"'{value}"
    return value


def _is_number(text: str) -> bool:
    return text.removeprefix("-").replace(".", "", 1).isdigit()


def parquet_of(model: type[BaseModel], rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Raises Refusal where the library is not installed."""
    try:
        import pyarrow as pa  # here, since who exports no Parquet need not load 40 MB
        from pyarrow import parquet
    except ImportError as e:
        detail = "Parquet needs the package pyarrow; install quotagate[parquet], or ask for csv."
        raise Refusal(problems.NOT_IMPLEMENTED, detail) from e
    arrow = {
        bool: pa.bool_(),
        int: pa.int64(),
        float: pa.float64(),
        str: pa.string(),
        date: pa.date32(),
        datetime: pa.timestamp("us", tz="UTC"),
    }
    fields = [(name, arrow[_kind(field.annotation)]) for name, field in model.model_fields.items()]
    table = pa.Table.from_pylist([{k: _plain(v) for k, v in row.items()} for row in rows], pa.schema(fields))
    out = io.BytesIO()
    parquet.write_table(table, out, compression="zstd")
    return out.getvalue()


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, str) else value  # words of enums, too


def _kind(annotation: Any) -> type:
    """The one type of a column beside None; words are text."""
    members = [each for each in get_args(annotation) if each is not type(None)] or [annotation]
    first = members[0]
    if not isinstance(first, type):
        return _kind(first) if get_args(first) else str
    for kind in (bool, int, float, datetime, date):
        if issubclass(first, kind):
            return kind
    return str
