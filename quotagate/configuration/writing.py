"""Files are written: the same content gives the same bytes, so that a difference in git is one of the configuration."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

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


def write_directory(directory: Path, plans: Mapping[str, Form] | None, organizations: Mapping[str, Form]) -> int:
    """`plans.yaml`, and a file for each organization; files of an earlier export that are none any more are deleted.
    Returns how many there are now. Raises OSError."""
    files = {
        directory / "organizations" / f"{quote(org, safe='')}.yaml": {org: form} for org, form in organizations.items()
    }
    contents = {file: whole(None, content) for file, content in files.items()}
    if plans is not None:
        contents[directory / "plans.yaml"] = whole(plans, None)
    (directory / "organizations").mkdir(parents=True, exist_ok=True)
    for file, content in contents.items():
        file.write_text(f"{MARK}\n{as_yaml(content)}", encoding="utf-8")
    _forget((directory / "organizations").glob("*.yaml"), contents)
    return len(contents)


def _forget(files: Iterable[Path], kept: Mapping[Path, Any]) -> None:
    for file in files:
        if file not in kept:
            with file.open(encoding="utf-8", errors="replace") as opened:
                ours = opened.readline().rstrip("\n") == MARK
            if ours:
                file.unlink()
