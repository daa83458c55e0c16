"""What pages are made of: each macro and chart, with plain values and with values that would be markup."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from control.console.frame import charts, rendering
from control.console.frame.forms import Filled, blank
from control.console.frame.scales import scale_of
from control.console.frame.sections import Section
from control.documents import Body

HOSTILE = "<script>alert('x')</script>\"' onmouseover=alert(1) {{ 7*7 }}"
VIEWER = SimpleNamespace(token="the-token", who="Ada", can=lambda permission: True, has=lambda path: True)
MOMENT = datetime(2026, 11, 30, 12, 3, 4, tzinfo=UTC)


def shown(source: str, **values: object) -> str:
    template = rendering._templates.from_string(source)  # a template of the test, as the pages have them
    given = {"viewer": VIEWER, "here": "/console/x?sort=name&plan=pro", "x": HOSTILE, **values}
    given["link"] = lambda **changes: rendering.address_with("/console/x?sort=name&plan=pro", changes)
    given["ui"] = rendering._parts(given)  # as above
    return template.render(given)


CALLS = {
    "card": "{% call ui.card(x, x, 'id') %}{{ x }}{% endcall %}",
    "tile": "{{ ui.tile(x, x, x, '/console?' ~ x, 'good') }}",
    "badge": "{{ ui.organization(x) }}{{ ui.organization('acme', x) }}{{ ui.organization(None) }}"
    "{{ ui.badge(x, 'warn') }}{{ ui.badges([x, x]) }}{{ ui.status(x) }}{{ ui.status('past_due') }}",
    "usage_bar": "{{ ui.usage_bar(90, 100, 10, 5, x) }}{{ ui.usage_bar(5, None, label=x) }}",
    "definitions": "{{ ui.definitions([(x, x), ('None', None)]) }}",
    "table": "{% call ui.table(x, [x, (x, 'number'), (x, 'number', 'name'), ('', 'actions')]) %}<tr>{{ ui.cell(x, x) }}"
    "{% call ui.cell_block(x, 'actions') %}{{ x }}{% endcall %}</tr>{% endcall %}",
    "pager": "{{ ui.pager(link(after=x), link(after=None)) }}",
    "filters": "{% call(f) ui.filters('results') %}{{ ui.search('q', x, x) }}{{ ui.select('s', x, [(x, x)], x) }}"
    "{{ ui.date('d', x, x) }}{{ ui.check('c', x, True) }}{% endcall %}",
    "field": "{{ ui.errors(form) }}{{ ui.field(form, 'name', x, hint=x) }}"
    "{{ ui.field(form, 'text', x, 'textarea', required=False) }}"
    "{{ ui.field(form, 'choice', x, 'select', options=[(x, x)]) }}{{ ui.field(form, 'yes', x, 'checkbox') }}"
    "{{ ui.field(form, 'at', x, 'datetime-local') }}{{ ui.field(form, 'n', x, 'number', min=0, max=9, unit=x) }}"
    "{{ ui.ending(form, {'name': 'at', 'label': x, 'required': True, 'default': x}) }}",
    "confirm": "{{ ui.confirm('/console/x', x, x, x, {'a': x}, cancel='/console') }}"
    "{{ ui.button_form('/console/x', x, 'danger', {'a': x}, x) }}",
    "tabs": "{{ ui.tabs(x, [(x, '/console', True), (x, '/console', False, 3)]) }}{{ ui.crumbs([(x, '/console')]) }}",
    "empty": "{{ ui.empty(x, x, '/console', x) }}{{ ui.notice(x, 'bad', x) }}{{ ui.as_of(moment) }}",
    "known": "{% call(v) ui.known(good, x) %}{{ v }}{% endcall %}{% call(v) ui.known(bad, x) %}{{ v }}{% endcall %}",
    "difference": "{{ ui.difference({'a': x, 'b': 1}, {'a': {'c': x}, 'd': x}) }}{{ ui.difference(None, {'a': 1}) }}",
    "json": "{{ ui.json({'a': x}) }}{{ ui.copy(x) }}",
    "live": "{{ ui.live_tiles({'tiles': {x: {'needs_attention': True, 'number': 7, 'more': True, 'since': moment}},"
    " 'as_of': moment}) }}",
    "shell": "{{ ui.person() }}{{ ui.mark(x) }}{{ ui.icon('menu') }}{{ ui.navigation_list([]) }}",
    "words": "{{ x | words }}{{ 1234567 | count }}{{ moment | moment }}{{ moment | ago }}"
    "{{ moment | day }}{{ None | day }}{{ x | beyond }}{{ x | stored_as }}{{ {x: x} | named | list }}",
}


@pytest.mark.parametrize("name", CALLS)
def test_a_part_shows_text_as_text_and_has_nothing_inline(name: str) -> None:
    form: Filled[Body] = blank(name=HOSTILE, text=HOSTILE, choice=HOSTILE).with_error("name", HOSTILE)
    html = shown(CALLS[name], form=form, moment=MOMENT, good=Section(HOSTILE), bad=Section(None, HOSTILE))
    assert "<script" not in html
    assert not re.search(r"<[^>]*\s(style|on\w+)=", re.sub(r'"[^"]*"', '""', html)), html
    assert "49" not in html
    well_formed(html)


def test_all_parts_are_tried() -> None:
    names = set(vars(rendering._parts({"viewer": VIEWER, "here": "", "link": str})))  # see above
    tried = set(re.findall(r"ui\.(\w+)", "".join(CALLS.values()))) | {"token", "swap", "sort_link"}
    assert names <= tried | {"ui"}


CHARTS: dict[str, Callable[[], Markup]] = {
    "columns": lambda: charts.columns(HOSTILE, [(HOSTILE, 5), ("b", 0), ("c", 12)], HOSTILE),
    "stacked": lambda: charts.columns("Calls", [("a", {HOSTILE: 1, "y": 2}), ("b", {"y": 4})]),
    "nothing": lambda: charts.columns("Calls", []),
    "zeros": lambda: charts.lines("Calls", ["a"], {"x": [0]}),
    "lines": lambda: charts.lines(
        HOSTILE, list("abc"), {HOSTILE: [1, None, 3], "z": [None] * 3}, band=([None, 1, 2], [None, 3, 9])
    ),
    "sparkline": lambda: charts.sparkline([1, 2, 1], HOSTILE),
    "flat sparkline": lambda: charts.sparkline([3, 3], "x"),
    "waterfall": lambda: charts.waterfall(HOSTILE, [(HOSTILE, 60), ("churn", -300)], 100),
    "bars": lambda: charts.bars(HOSTILE, [(HOSTILE, 3, "/console?x=" + HOSTILE), ("b", 0, None)]),
    "cohorts": lambda: charts.cohorts(HOSTILE, ["Month", "0", "1"], [(HOSTILE, [1.0, 0.42]), ("b", [1.0, None])]),
    "usage": lambda: charts.usage_bar(120, 100, 10, 50),
}


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_is_well_formed_and_shows_text_as_text(name: str) -> None:
    html = str(CHARTS[name]())
    well_formed(html)
    assert "<script" not in html
    assert not re.search(r"<[^>]*\s(style|on\w+)=", re.sub(r'"[^"]*"', '""', html)), html


def test_a_waterfall_ends_where_its_steps_lead() -> None:
    html = str(charts.waterfall("MRR", [("New", 60), ("Churn", -30)], 100))
    assert html.count("<rect") == 4
    assert '<th scope="row">End</th><td>130</td>' in html
    assert '<th scope="row">Churn</th><td>\N{MINUS SIGN}30</td>' in html


@pytest.mark.parametrize("values", [[0.0], [1, 2, 3], [-5, 5], [0.001, 0.002], [10**12], [7, 7]])
def test_an_axis_holds_all_values_between_round_numbers(values: list[float]) -> None:
    scale = scale_of([0, *values])
    assert 2 <= len(scale.ticks) <= 8
    assert scale.ticks[0] == scale.low <= min(values)
    assert max(values) <= scale.high == scale.ticks[-1]
    assert scale.y(scale.high) == 0


def well_formed(html: str) -> None:
    """As XML reads it, once what has no end tag in HTML is closed and attributes without a value have one."""
    closed = re.sub(r"<(input|meta|link|br|hr)\b((?:[^>\"]|\"[^\"]*\")*)>", r"<\1\2/>", html)
    valued = re.sub(
        r"(<\w+(?:\s+[\w-]+=\"[^\"]*\")*(?:\s+[\w-]+(?:=\"[^\"]*\")?)*\s*/?>)",
        lambda tag: re.sub(
            r"\s(hidden|required|checked|selected|data-ago|data-filters|data-live-status)(?=[\s/>])", r' \1=""', tag[0]
        ),
        closed,
    )
    ElementTree.fromstring(f"<div>{valued}</div>")  # noqa: S314  # what this repository has just made
