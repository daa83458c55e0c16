"""One wire contract: each binary layout, and each number that scripts and Python tell each other, is written once."""

import re
from collections import Counter
from pathlib import Path

import pytest

from quota.scripts import ScriptMalformed, compose, script
from quota.wire import (
    BALANCE,
    CONSTANTS,
    LASTING_BEGIN,
    LASTING_END,
    LAYOUTS,
    ONE_METER_CHANGING,
    REPLY,
    REPLY_WITH_BALANCE,
)

ROOT = Path(__file__).parents[2]
ROOMS = ("gateway", "control", "identity", "common", "quota", "devstack", "quotagate", "bench", "tests")
CONTRACT = ROOT / "quota" / "wire.py"
SCRIPTS = sorted(path.stem for path in (ROOT / "lua").glob("*.lua"))

LAYOUT = re.compile(r"""["']<([xcbB?hHiIlLqQefd0-9 ]+)["']""")
BARE_NUMBERS = (
    re.compile(r"(?<!un)pack\([A-Z_]+, [-0-9]"),  # a verdict in place of its name
    re.compile(r"return \{-?[0-9]"),  # likewise an outcome
    re.compile(r"['\"][ku]1?['\"]"),  # a mark
    re.compile(r"\b1e12\b|\b86400\b"),
)
BARE_OUTCOMES = re.compile(r"\breply\[0\] *(==|!=|<|>|in) *[-(]?[0-9]")


def sources(*endings: str) -> list[Path]:
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")] + list((ROOT / "lua").rglob("*.lua"))
    return [path for path in files if path.name.endswith(endings)]


def test_each_layout_is_written_once() -> None:
    places = [
        (layout, path)
        for path in sources(".py", ".lua")
        if path != Path(__file__)
        for layout in LAYOUT.findall(path.read_text())
    ]
    assert [layout for layout, count in Counter(layout for layout, _ in places).items() if count > 1] == []
    assert {"BBdddd", "ddd", "dd", "dBBdddddd"} <= {layout for layout, path in places if path == CONTRACT}


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_writes_a_number_of_the_contract(name: str) -> None:
    code = re.sub(r"--\[\[.*?\]\]|--(?!@).*", "", (ROOT / "lua" / f"{name}.lua").read_text(), flags=re.DOTALL)
    assert [pattern.pattern for pattern in BARE_NUMBERS if pattern.search(code)] == []


def test_no_module_compares_a_reply_with_a_number() -> None:
    assert [str(path) for path in sources(".py") if BARE_OUTCOMES.search(path.read_text())] == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_uses_each_constant_that_it_asks_for_and_asks_for_each_that_it_uses(name: str) -> None:
    text = (ROOT / "lua" / f"{name}.lua").read_text()
    asked = [word for line in re.findall(r"^ *--@constants (.+)$", text, re.MULTILINE) for word in line.split()]
    code = re.sub(r"--.*", "", re.sub(r"--\[\[.*?\]\]", "", text, flags=re.DOTALL))
    used = set(re.findall(r"\b[A-Z][A-Z_]{2,}\b", re.sub(r"'[^'\n]*'", "''", code))) & set(CONSTANTS)
    assert set(asked) == used


def test_a_script_that_asks_for_what_is_no_constant_is_refused() -> None:
    with pytest.raises(ScriptMalformed, match=r"lua/odd\.lua: no such constant: VERDICT_9"):
        compose("--@constants ADMITTED VERDICT_9\n", "odd")


def test_constants_take_one_line_so_that_an_error_names_the_line_of_the_file() -> None:
    text = "--[[ odd ]]\n  --@constants ADMITTED REPLY\nreturn ADMITTED\n"
    assert compose(text, "odd") == "--[[ odd ]]\n  local ADMITTED, REPLY = 1, '<BBdddd'\nreturn ADMITTED\n"


@pytest.mark.parametrize("name", SCRIPTS)
def test_nothing_is_left_to_be_expanded(name: str) -> None:
    assert b"--@" not in script(name).source


def test_layouts_have_no_padding() -> None:
    for layout in LAYOUTS.values():
        assert layout.format.startswith("<")
    assert REPLY_WITH_BALANCE.size == REPLY.size + BALANCE.size


def test_the_parts_of_an_admission_by_one_meter_are_those_of_the_whole() -> None:
    reply = REPLY_WITH_BALANCE.pack(1, 0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)
    assert ONE_METER_CHANGING.unpack_from(reply) == (2.0, 7.0)
    lasting = reply[LASTING_BEGIN:LASTING_END]
    assert lasting in REPLY_WITH_BALANCE.pack(9, 9, 9.0, 3.0, 4.0, 5.0, 6.0, 9.0, 9.0)
    assert lasting not in REPLY_WITH_BALANCE.pack(1, 0, 2.0, 3.0, 4.0, 5.0, 9.0, 7.0, 8.0)
