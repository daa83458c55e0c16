"""`/docs`: a page that documents the API; `/openapi.json`: the same for programs.

The page is generated from the OpenAPI document. It contains no script and loads nothing, and its policy allows nothing
else (https://www.w3.org/TR/CSP3/).
"""

import json
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from hashlib import sha256
from importlib.resources import files
from typing import Any, Final

from fastapi import APIRouter, Request
from jinja2 import Environment, select_autoescape
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse, JSONResponse

from control.http.guards import Documented

router = APIRouter(dependencies=[Documented], include_in_schema=False)

STYLE: Final = files("control.api").joinpath("docs.css").read_text(encoding="utf-8")
POLICY: Final = "; ".join(
    [
        "default-src 'none'",
        f"style-src 'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
EXAMPLES_DEPTH_MAX: Final = 6
_CODE: Final = re.compile(r"`([^`\n]+)`")

Schema = Mapping[str, Any]


def prose(text: str) -> Markup:
    """Paragraphs; what stands in backquotes is code."""
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]
    marked = (_CODE.sub(r"<code>\1</code>", str(escape(part))) for part in paragraphs)
    return Markup("".join(f"<p>{part}</p>" for part in marked))  # noqa: S704  escaped in the line above


def kind_of(schema: Schema) -> Markup:
    """A type in a few words, with a link to where a named one is described."""
    if ref := schema.get("$ref"):
        name = str(ref).rpartition("/")[2]
        return Markup('<a href="#schema-{0}">{0}</a>').format(name)
    if several := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        return Markup(" or ").join(kind_of(each) for each in several)
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return Markup(" or ").join(Markup("<code>{}</code>").format(json.dumps(value)) for value in values)
    kind = schema.get("type", "any")
    if kind == "array":
        return Markup("list of ") + kind_of(schema.get("items", {}))
    if kind == "object" and isinstance(inner := schema.get("additionalProperties"), Mapping):
        return Markup("object of ") + kind_of(inner)
    bounds = [f"{word} {schema[key]}" for key, word in _BOUNDS.items() if key in schema]
    words = " ".join([str(kind), *([str(schema["format"])] if "format" in schema else []), *bounds])
    return Markup("{}").format(words)


_BOUNDS: Final = {
    "minimum": "from",
    "exclusiveMinimum": "above",
    "maximum": "to",
    "exclusiveMaximum": "below",
    "minLength": "of at least",
    "maxLength": "of at most",
    "pattern": "like",
}


def example_of(schema: Schema, schemas: Mapping[str, Schema], depth: int = 0) -> Any:
    """A value of this form: what must be given, each as its schema shows it."""
    if "example" in schema:
        return schema["example"]
    if examples := schema.get("examples"):
        return examples[0]
    if "default" in schema:
        return schema["default"]
    if ref := schema.get("$ref"):
        return example_of(schemas.get(str(ref).rpartition("/")[2], {}), schemas, depth + 1)
    if several := schema.get("oneOf") or schema.get("anyOf") or schema.get("allOf"):
        return example_of(several[0], schemas, depth)
    if "enum" in schema or "const" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    match schema.get("type"):
        case "object":
            needed = schema.get("required", ()) if depth < EXAMPLES_DEPTH_MAX else ()
            return {name: example_of(schema.get("properties", {}).get(name, {}), schemas, depth + 1) for name in needed}
        case "array":
            return [example_of(schema.get("items", {}), schemas, depth + 1)] if depth < EXAMPLES_DEPTH_MAX else []
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "string":
            return {"date-time": "2026-12-01T00:00:00Z", "uuid": "01a20563-d0f0-7b6c-a4e5-e5e1fe8a5fdc"}.get(
                schema.get("format", ""), "text"
            )
    return None


def operations(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What may be asked, in the order of the document."""
    schemas = document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            answers = {
                status: answer.get("content", {}).get("application/json", {}).get("schema")
                for status, answer in operation.get("responses", {}).items()
                if status != "default"
            }
            yield {
                "id": f"{method}-{path}",
                "method": method.upper(),
                "path": path,
                "summary": operation.get("summary", ""),
                "about": operation.get("description", ""),
                "tag": (operation.get("tags") or ["other"])[0],
                "guarded": bool(operation.get("security")),
                "permission": operation.get("x-permission"),
                "parameters": operation.get("parameters", []),
                "body": body and body.get("schema", {}),
                "example": body
                and json.dumps(body.get("example") or example_of(body.get("schema", {}), schemas), indent=2),
                "answers": answers,
            }


_pages = Environment(autoescape=select_autoescape(default=True), trim_blocks=True, lstrip_blocks=True)
_pages.filters |= {"prose": prose, "kind": kind_of}
_page = _pages.from_string(files("control.api").joinpath("docs.html").read_text(encoding="utf-8"))


def page(document: Mapping[str, Any], base_url: str) -> str:
    listed = list(operations(document))
    tags = list(dict.fromkeys(each["tag"] for each in listed))
    by_tag = {tag: [each for each in listed if each["tag"] == tag] for tag in tags}
    return _page.render(document=document, by_tag=by_tag, base_url=base_url, style=Markup(STYLE))  # noqa: S704  our own


@router.get("/docs")
async def read_docs(request: Request) -> HTMLResponse:
    html = page(request.app.openapi(), str(request.base_url).rstrip("/"))
    return HTMLResponse(html, headers={"Content-Security-Policy": POLICY})


@router.get("/openapi.json")
async def read_document(request: Request) -> JSONResponse:
    return JSONResponse(request.app.openapi())
