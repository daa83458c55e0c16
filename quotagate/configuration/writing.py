"""Files are written: the same content gives the same bytes, so that a difference in git is one of the configuration."""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import yaml

from common.durable_files import replace_text
from common.settings_file import escaped, is_read_as_text
from quotagate.configuration.document import FORMAT
from quotagate.configuration.forms import Form

MARK = "# Written by `quotagate export`, which replaces this file."
LINE_COLUMNS = 120
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


class _Dumper(yaml.SafeDumper):
    """Quotes what would be read as something else, and has no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if is_read_as_text(text) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", escaped(text), style)


_Dumper.add_representer(str, _text)


def as_yaml(content: Mapping[str, Any]) -> str:
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=LINE_COLUMNS)


def as_json(content: Mapping[str, Any]) -> str:
    """JSON that is YAML, too, which knows no pairs of surrogates and no raw control characters."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    return escaped(_UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)) + "\n"


def whole(plans: Mapping[str, Form] | None, organizations: Mapping[str, Form] | None) -> dict[str, Any]:
    content = {"format": FORMAT, "plans": plans, "organizations": organizations}
    return {name: value for name, value in content.items() if value is not None}


class Spool:
    """Organizations on their way into one file, as text on disk: a hundred thousand take little memory, in whatever
    order they come."""

    def __init__(self, file: BinaryIO, *, json_wanted: bool) -> None:
        self._file = file
        self._json_wanted = json_wanted
        self._places: list[tuple[str, int, int]] = []
        """Organization, and where its text begins and ends."""

    def __len__(self) -> int:
        return len(self._places)

    def add(self, org: str, form: Form) -> None:
        """Raises OSError."""
        content = {"organizations": {org: form}}
        if self._json_wanted:
            lines = as_json(content).splitlines(keepends=True)[2:-2]
        else:
            lines = as_yaml(content).splitlines(keepends=True)[1:]
        start = self._file.tell()
        self._file.write("".join(lines).rstrip("\n").encode())
        self._places.append((org, start, self._file.tell()))

    def texts(self, plans: Mapping[str, Form] | None) -> Iterator[str]:
        """All of the file, with the organizations in the order of their ids. Raises OSError."""
        text = as_json(whole(plans, {})) if self._json_wanted else as_yaml(whole(plans, {}))
        if not self._places:
            yield text
            return
        head, _, tail = text.rpartition("{}")
        begin, between, end = ("{\n", ",\n", "\n  }") if self._json_wanted else ("\n", "\n", "")
        yield head.removesuffix("" if self._json_wanted else " ")
        for number, (_, start, stop) in enumerate(sorted(self._places)):
            self._file.seek(start)
            yield (between if number else begin) + self._file.read(stop - start).decode()
        yield end + tail


def write_plans(directory: Path, plans: Mapping[str, Form]) -> Path:
    """Raises OSError."""
    return _write(directory / "plans.yaml", whole(plans, None))


def write_organization(directory: Path, org: str, form: Form) -> Path:
    """Raises OSError."""
    return _write(directory / "organizations" / f"{quote(org, safe='')}.yaml", whole(None, {org: form}))


def forget_others(directory: Path, kept: Collection[Path]) -> None:
    """Deletes files of an earlier export that are none any more. Raises OSError."""
    for file in (directory / "organizations").glob("*.yaml"):
        if file not in kept:
            with file.open(encoding="utf-8", errors="replace") as opened:
                ours = opened.readline().rstrip("\n") == MARK
            if ours:
                file.unlink()


def _write(file: Path, content: Mapping[str, Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_text(file, f"{MARK}\n{as_yaml(content)}", synced=False)  # a hundred thousand would take minutes
    return file
