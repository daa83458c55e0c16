"""What of a new OpenAPI document breaks a client that was written for the one before. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

Document = Mapping[str, Any]
Schema = Mapping[str, Any]
METHODS = ("get", "put", "post", "delete", "patch", "head", "options")


def is_same_major(before: Document, after: Document) -> bool:
    majors = {str(each["info"]["version"]).partition(".")[0] for each in (before, after)}
    return len(majors) == 1


def breaks(before: Document, after: Document) -> Iterator[str]:
    """A line for each: what was possible and is not, and what an answer had and has no more."""
    for path, operations in before["paths"].items():
        for method, old in operations.items():
            if method not in METHODS:
                continue
            where, new = f"{method.upper()} {path}", after["paths"].get(path, {}).get(method)
            if new is None:
                yield f"{where} is gone"
                continue
            if old.get("operationId") != new.get("operationId"):
                yield f"{where} is called {new.get('operationId')}, and no longer {old.get('operationId')}"
            yield from _parameters(where, old, new, before, after)
            yield from _request(where, old, new, before, after)
            yield from _answers(where, old, new, before, after)


def _parameters(where: str, old: Schema, new: Schema, before: Document, after: Document) -> Iterator[str]:
    olds = {(each["in"], each["name"]): each for each in old.get("parameters", ())}
    news = {(each["in"], each["name"]): each for each in new.get("parameters", ())}
    for key, each in olds.items():
        if key not in news:
            yield f"{where}: the parameter {key[1]} is gone"
        else:
            yield from _Comparison(before, after, asked=True).differ(
                f"{where}: parameter {key[1]}", each.get("schema", {}), news[key].get("schema", {})
            )
    for key, each in news.items():
        if each.get("required") and not olds.get(key, {}).get("required"):
            yield f"{where}: the parameter {key[1]} is required"


def _request(where: str, old: Schema, new: Schema, before: Document, after: Document) -> Iterator[str]:
    was, now = old.get("requestBody", {}), new.get("requestBody", {})
    if now.get("required") and not was.get("required"):
        yield f"{where}: a body is required"
    for kind, content in was.get("content", {}).items():
        if kind not in now.get("content", {}):
            yield f"{where}: a body of {kind} is not taken"
        else:
            yield from _Comparison(before, after, asked=True).differ(
                f"{where}: body", content.get("schema", {}), now["content"][kind].get("schema", {})
            )


def _answers(where: str, old: Schema, new: Schema, before: Document, after: Document) -> Iterator[str]:
    for status, answer in old.get("responses", {}).items():
        if not status.startswith("2"):
            continue
        other = new.get("responses", {}).get(status)
        if other is None:
            yield f"{where}: the answer {status} is gone"
            continue
        for kind, content in answer.get("content", {}).items():
            if kind not in other.get("content", {}):
                yield f"{where}: {status} is not {kind} any more"
            else:
                yield from _Comparison(before, after, asked=False).differ(
                    f"{where}: {status}", content.get("schema", {}), other["content"][kind].get("schema", {})
                )


class _Comparison:
    """Of two schemas. `asked`: a client sends values of it; otherwise it reads them."""

    def __init__(self, before: Document, after: Document, *, asked: bool) -> None:
        self._before = before
        self._after = after
        self._asked = asked
        self._seen: set[tuple[str, str]] = set()

    def differ(self, where: str, old: Schema, new: Schema) -> Iterator[str]:
        names = str(old.get("$ref")), str(new.get("$ref"))
        if names != ("None", "None"):
            if names in self._seen:
                return
            self._seen.add(names)
        yield from self._types(where, old, new)
        old, new = _resolved(old, self._before), _resolved(new, self._after)
        yield from self._values(where, old, new)
        yield from self._members(where, old, new)
        for inside, word in (("items", "[]"), ("additionalProperties", ".*")):
            if isinstance(old.get(inside), Mapping) and isinstance(new.get(inside), Mapping):
                yield from self.differ(f"{where}{word}", old[inside], new[inside])

    def _types(self, where: str, old: Schema, new: Schema) -> Iterator[str]:
        olds, news = _types(old, self._before), _types(new, self._after)
        if not olds or not news:
            return  # of any type
        lost = olds - news if self._asked else news - olds
        if lost:
            words = " or ".join(sorted(lost))
            yield f"{where} may not be {words} any more" if self._asked else f"{where} may be {words}"

    def _values(self, where: str, old: Schema, new: Schema) -> Iterator[str]:
        if self._asked and "enum" in old and "enum" in new:
            for value in old["enum"]:
                if value not in new["enum"]:
                    yield f"{where} may not be {value} any more"

    def _members(self, where: str, old: Schema, new: Schema) -> Iterator[str]:
        olds, news = old.get("properties", {}), new.get("properties", {})
        for name, schema in olds.items():
            if name in news:
                yield from self.differ(f"{where}.{name}", schema, news[name])
            elif news or not self._asked:
                yield f"{where}.{name} is gone"
        needed, given = set(new.get("required", ())), set(old.get("required", ()))
        if self._asked:
            yield from (f"{where}.{name} is required" for name in sorted(needed - given))
        else:
            yield from (f"{where}.{name} may be missing" for name in sorted((given - needed) & news.keys()))


def _resolved(schema: Schema, document: Document) -> Schema:
    """References, and the one schema of those that is not null."""
    while "$ref" in schema:
        schema = document["components"]["schemas"][str(schema["$ref"]).rpartition("/")[2]]
    several = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    return _resolved(several[0], document) if len(several) == 1 else schema


def _types(schema: Schema, document: Document) -> set[str]:
    """Of JSON Schema; none: any. An integer is a number, too."""
    if "$ref" in schema:
        return _types(_resolved(schema, document), document)
    if several := schema.get("anyOf") or schema.get("oneOf"):
        return set().union(*(_types(each, document) for each in several))
    kind = schema.get("type")
    kinds = {kind} if isinstance(kind, str) else set(kind or ())
    return kinds | ({"integer"} if "number" in kinds else set())
