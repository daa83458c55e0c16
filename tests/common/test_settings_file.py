"""A settings file is usable, or each wrong thing in it is told with file, line and field, and no secret is shown."""

from pathlib import Path
from typing import Annotated, Self

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, SecretStr, model_validator

from common.settings_file import SettingsConflict, SettingsError, SettingsModel, compose, load, parse
from common.settings_schema import json_schema


class Door(SettingsModel):
    """A door."""

    width: int
    """Millimetres."""
    colour: str | None = None
    open: bool = False


class House(SettingsModel):
    name: str
    key: SecretStr = SecretStr("")
    lock: Annotated[SecretStr, Field(min_length=4)] = SecretStr("1234")
    height: float = 2.5
    doors: Annotated[tuple[Door, ...], Field(min_length=1)] = (Door(width=800),)
    rooms: dict[str, Door] = Field(default={})
    tags: str | tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _doors_differ(self) -> Self:
        seen: set[int] = set()
        faults = []
        for index, door in enumerate(self.doors):
            if door.width in seen:
                faults.append((("doors", index, "width"), f"{door.width} is taken"))
            seen.add(door.width)
        if faults:
            raise SettingsConflict(faults)
        return self


def read(text: str, **environ: str) -> House:
    return parse("house.yaml", text, House, environ)


def refusal(text: str, **environ: str) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        read(text, **environ)
    return str(refused.value).splitlines()


def test_a_valid_file_becomes_a_frozen_model() -> None:
    house = read("name: a\ndoors:\n  - {width: 1, open: true}\nheight: 3\ntags: [x, y]\n")
    assert (house.name, house.doors[0].open, house.height, house.tags) == ("a", True, 3, ("x", "y"))
    with pytest.raises(ValueError, match="frozen"):
        house.name = "b"


def test_every_wrong_thing_is_told_at_once_with_file_line_and_field() -> None:
    assert refusal(
        """\
nme: a
height: tall
doors:
  - width: 80
  - width: "90"
    colour: 7
rooms:
  hall: {width: 1, opn: true}
"""
    ) == [
        "house.yaml:1: name: is missing",
        "house.yaml:1: nme: unknown field (did you mean name?)",
        "house.yaml:2: height: should be a valid number",
        "house.yaml:5: doors[1].width: should be a valid integer",
        "house.yaml:6: doors[1].colour: should be a valid string",
        "house.yaml:8: rooms.hall.opn: unknown field (did you mean open?)",
    ]


def test_an_unknown_field_without_a_near_one_lists_the_known_ones() -> None:
    assert refusal("name: a\ndoors: [{width: 1, zzz: 2}]") == [
        "house.yaml:2: doors[0].zzz: unknown field (known: colour, open, width)"
    ]


def test_a_missing_field_is_told_on_the_line_of_what_should_hold_it() -> None:
    assert refusal("name: a\n\ndoors:\n  - colour: red\n") == ["house.yaml:4: doors[0].width: is missing"]


def test_fields_that_do_not_fit_together_are_told_on_the_line_of_the_field() -> None:
    assert refusal("name: a\ndoors:\n  - width: 8\n  - colour: red\n    width: 8\n") == [
        "house.yaml:5: doors[1].width: 8 is taken"
    ]


def test_alternatives_of_one_field_are_one_line() -> None:
    assert refusal("name: a\ntags: 7") == ["house.yaml:2: tags: should be a valid string or should be a valid array"]


def test_a_list_whose_items_are_all_wrong_is_not_also_called_empty() -> None:
    assert refusal("name: a\ndoors:\n  - width: x\n") == ["house.yaml:3: doors[0].width: should be a valid integer"]
    assert refusal("name: a\ndoors: []\n")[0].startswith("house.yaml:2: doors: ")


@pytest.mark.parametrize(
    ("text", "line"),
    [("name: [a\nheight: 1\n", 2), ("name: a\n\tx: 1\n", 2), ("name: a\n---\nname: b\n", 2), ("a: *b\n", 1)],
)
def test_a_syntax_error_is_told_with_its_line(text: str, line: int) -> None:
    assert refusal(text)[0].startswith(f"house.yaml:{line}: not valid YAML: ")


def test_a_control_character_is_a_syntax_error() -> None:
    assert "not valid YAML" in refusal("name: a\x00")[0]


def test_a_field_given_twice_is_refused() -> None:
    assert refusal("name: a\nheight: 1\nname: b\n") == ["house.yaml:1: name: given twice: on line 1 and on line 3"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "~\n"])
def test_an_empty_file_is_told_what_is_missing(text: str) -> None:
    assert refusal(text)[0] == "house.yaml:1: name: is missing"


def test_a_file_that_is_no_mapping_is_refused() -> None:
    assert refusal("- a\n") == ["house.yaml:1: should be an object"]


def test_an_alias_that_holds_itself_is_refused() -> None:
    assert refusal("name: a\nrooms: &r\n  hall: *r\n") == [
        "house.yaml:3: rooms.hall: an alias (*) must not contain itself"
    ]


def test_an_alias_of_a_finished_value_is_that_value() -> None:
    assert read("name: a\nrooms:\n  hall: &h {width: 9}\n  attic: *h\n").rooms["attic"].width == 9


def test_yaml_tags_and_composite_names_are_refused() -> None:
    assert refusal("name: !!python/object:os.system a\n") == ["house.yaml:1: name: YAML tags (!) are not supported"]
    assert refusal("name: a\n? [x]\n: 1\n") == ["house.yaml:1: line 2: a field's name must be plain text"]


@pytest.mark.parametrize("text", ["no", "yes", "on", "2024-01-01", "1:30", "0x10", "1_000"])
def test_text_that_yaml_1_1_would_convert_stays_text(text: str) -> None:
    assert read(f"name: {text}").name == text


def test_a_variable_is_replaced_wherever_it_stands_in_a_value() -> None:
    assert read('name: "x-${A}-${B:-c}"', A="a").name == "x-a-c"


def test_a_default_also_covers_an_empty_variable() -> None:
    assert read("name: ${A:-b}", A="").name == "b"


def test_a_doubled_dollar_is_a_literal_reference() -> None:
    assert read("name: $${A}").name == "${A}"


@pytest.mark.parametrize("value", ["${WIDTH}", '"${WIDTH}"', "${NONE:-7}"])
def test_a_variable_takes_the_type_of_its_field(value: str) -> None:
    assert read(f"name: a\ndoors:\n  - width: {value}\n", WIDTH="7").doors[0].width == 7


def test_a_variable_of_digits_stays_text_where_text_is_asked_for() -> None:
    house = read("name: ${A}\nkey: ${A}", A="0123456789")
    assert (house.name, house.key.get_secret_value()) == ("0123456789", "0123456789")


def test_a_secret_that_is_too_short_is_told_with_its_line_and_without_its_text() -> None:
    assert refusal('name: a\nlock: "${A}"\n', A="xyz") == ["house.yaml:2: lock: must have at least 4 characters"]


def test_a_quoted_number_is_not_a_number_unless_the_environment_gave_it() -> None:
    assert refusal('name: a\nheight: "3"') == ["house.yaml:2: height: should be a valid number"]


def test_an_unset_variable_without_default_is_told_with_its_line_beside_the_other_faults() -> None:
    assert refusal("height: ${TALL}\nname: ${NAME}\ncolour: red\n") == [
        "house.yaml:1: height: environment variable TALL is not set",
        "house.yaml:2: name: environment variable NAME is not set",
        "house.yaml:3: colour: unknown field (known: doors, height, key, lock, name, rooms, tags)",
    ]


def test_a_damaged_reference_is_refused() -> None:
    assert "must be ${NAME}" in refusal("name: ${a-b}")[0]


def test_a_value_from_the_environment_is_never_printed() -> None:
    message = refusal("name: a\ndoors: [{width: 7}, {width: '${W}'}]", W="7")
    assert message == ["house.yaml:2: doors[1].width: ${W} is taken"]
    message = refusal("name: a\nheight: ${H}", H="hunter2-hunter2")
    assert "hunter2" not in "".join(message)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml: cannot be read: No such file"):
        load(tmp_path / "none.yaml", "gateway.yaml", House, {})
    (tmp_path / "latin.yaml").write_bytes(b"name: a\ncity: K\xf6ln\n")
    with pytest.raises(SettingsError, match=r"latin\.yaml:2: not UTF-8"):
        load(tmp_path / "latin.yaml", "gateway.yaml", House, {})


def test_the_cause_of_a_refusal_does_not_carry_the_input_along() -> None:
    with pytest.raises(SettingsError) as refused:
        read("name: a\nheight: ${H}", H="hunter2-hunter2")
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None


def test_the_json_schema_describes_fields_and_allows_references() -> None:
    schema = json_schema(House)
    width = schema["$defs"]["Door"]["properties"]["width"]
    assert width["description"] == "Millimetres."
    assert width["anyOf"] == [{"type": "integer"}, {"type": "string", "pattern": r"\$\{"}]
    assert schema["additionalProperties"] is False


@given(st.text(alphabet="name:tagsdoorswidth \n-[]{}&*!|>'\"#${}7~?,", max_size=80))
def test_whatever_a_file_holds_it_is_read_or_refused(text: str) -> None:
    try:
        lines = [f"house.yaml:1: {read(text).name}"]
    except SettingsError as refused:
        lines = str(refused).splitlines()
    assert all(line.startswith("house.yaml:") for line in lines)


def _tree(node: yaml.Node | None) -> object:
    """Kinds, texts, whether they are plain, and lines."""
    match node:
        case yaml.MappingNode():
            return node.tag, node.start_mark.line, [(_tree(key), _tree(value)) for key, value in node.value]
        case yaml.SequenceNode():
            return node.tag, node.start_mark.line, [_tree(each) for each in node.value]
        case yaml.ScalarNode():
            return node.tag, node.start_mark.line, node.value, bool(node.style)
    return None


PACKAGED = sorted((Path(__file__).parents[2] / "config").glob("*.yaml"))
ODD = """# odd
a: &anchor {b: [1, ~, yes, 1e5, 0x10, "q: \\u2603", 'it''s', '${HOME}']}
again: *anchor
folded: >-
    one
    two

  # a comment
block: |
  kept
   as is
empty:
? complex
: - x
  -
"""


@pytest.mark.parametrize("text", [ODD, "", "# nothing", "a: 1\r\nb: 2\r\n", "\ufeffa: 1", "é: ☃\n🦊: 1"])
def test_what_libyaml_reads_quickly_is_what_pyyaml_reads(text: str) -> None:
    assert _tree(compose(text)) == _tree(compose(text, quickly=False))


@pytest.mark.parametrize("file", PACKAGED, ids=lambda file: file.name)
def test_the_packaged_files_are_read_alike(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert _tree(compose(text)) == _tree(compose(text, quickly=False))
