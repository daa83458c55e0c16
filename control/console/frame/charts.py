"""Charts as SVG, made here: no script, and the page's policy needs no exception. Pure.

The drawing is stretched to the width there is; its texts are HTML around it, so that they stay readable on a telephone.
The numbers are also in a table below it, for who cannot see it or wants them exactly.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Final

from markupsafe import Markup

from control.console.frame.figures import Format, figure, rect, table_of
from control.console.frame.formats import count
from control.console.frame.scales import WIDTH, ends_of, scale_of

Value = float | Mapping[str, float]

SERIES_MAX: Final = 6  # as many colours as can be told apart


def columns(title: str, points: Sequence[tuple[str, Value]], unit: str = "", format: Format = count) -> Markup:
    """A column for each point; of several series, which are stacked."""
    rows = [(label, dict(value) if isinstance(value, Mapping) else {title: value}) for label, value in points]
    names = list(dict.fromkeys(name for _, values in rows for name in values))[:SERIES_MAX]
    scale = scale_of([0, *(sum(max(0, v) for v in values.values()) for _, values in rows)])
    step = WIDTH / max(1, len(rows))
    width = max(1.0, step * 0.72)
    drawn = []
    for place, (label, values) in enumerate(rows):
        base = 0.0
        for series, name in enumerate(names):
            value = max(0.0, float(values.get(name, 0)))
            top, bottom = scale.y(base + value), scale.y(base)
            base += value
            hint = f"{label}: {format(value)}{unit and ' '}{unit}" + (f" ({name})" if len(names) > 1 else "")
            drawn.append(rect(place * step + (step - width) / 2, top, width, bottom - top, f"s{series}", hint))
    table = table_of(["", *names], rows, names, format)
    return figure(title, Markup("").join(drawn), scale, [label for label, _ in rows], names, unit, format, table)


def lines(
    title: str,
    labels: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    unit: str = "",
    band: tuple[Sequence[float | None], Sequence[float | None]] | None = None,
    format: Format = count,
) -> Markup:
    """A line for each series. `band`: the lowest and highest that are expected, where a forecast begins."""
    names = list(series)[:SERIES_MAX]
    known = [value for name in names for value in series[name] if value is not None]
    known += [value for side in band or () for value in side if value is not None]
    scale = scale_of([0, *known])
    step = WIDTH / max(1, len(labels) - 1)
    drawn = []
    if band is not None:
        low, high = band
        there = [i for i in range(len(labels)) if low[i] is not None and high[i] is not None]
        edge = [(i * step, scale.y(float(high[i] or 0))) for i in there]
        edge += [(i * step, scale.y(float(low[i] or 0))) for i in reversed(there)]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in edge)
        drawn.append(Markup('<polygon class="band" points="{}"/>').format(points))
    for number, name in enumerate(names):
        for run in _runs(series[name]):
            points = " ".join(f"{i * step:.1f},{scale.y(value):.1f}" for i, value in run)
            drawn.append(Markup('<polyline class="line s{}" points="{}"/>').format(number, points))
    rows = [
        (label, {name: value for name in names if (value := series[name][place]) is not None})
        for place, label in enumerate(labels)
    ]
    table = table_of(["", *names], rows, names, format)
    return figure(title, Markup("").join(drawn), scale, list(labels), names, unit, format, table)


def sparkline(values: Sequence[float], title: str) -> Markup:
    """A line without axes, as large as a word."""
    if not values:
        return Markup("")
    low, high = ends_of(values)
    step = 100 / max(1, len(values) - 1)
    points = " ".join(f"{i * step:.1f},{22 - (v - low) / (high - low) * 20:.1f}" for i, v in enumerate(values))
    return Markup(
        '<svg class="sparkline" viewBox="0 0 100 24" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<polyline class="line s0" points="{}"/></svg>'
    ).format(title, points)


def waterfall(
    title: str,
    steps: Sequence[tuple[str, float]],
    start: float = 0,
    format: Format = count,
    ends: tuple[str, str] = ("Start", "End"),
) -> Markup:
    """From a start by signed steps to an end."""
    levels = list(accumulate((value for _, value in steps), initial=start))
    bars = [(ends[0], 0.0, start, "s0")]
    bars += [
        (label, levels[place], levels[place + 1], "good" if value >= 0 else "bad")
        for place, (label, value) in enumerate(steps)
    ]
    bars.append((ends[1], 0.0, levels[-1], "s0"))
    scale = scale_of([0, *levels])
    step = WIDTH / len(bars)
    drawn = []
    for place, (label, begins, ends_at, kind) in enumerate(bars):
        top, bottom = scale.y(max(begins, ends_at)), scale.y(min(begins, ends_at))
        is_step = kind in ("good", "bad")
        said = format(ends_at - begins if is_step else ends_at)
        left, height = (place + 0.12) * step, max(1.0, bottom - top)
        drawn.append(rect(left, top, step * 0.76, height, kind, f"{label}: {said}"))
    shown = [(label, {"": ends_at - begins if kind != "s0" else ends_at}) for label, begins, ends_at, kind in bars]
    table = table_of(["", title], shown, [""], format)
    labels = [label for label, *_ in bars]
    return figure(title, Markup("").join(drawn), scale, labels, [], "", format, table, each=True)


def bars(
    title: str,
    points: Sequence[tuple[str, float, str | None]],
    format: Format = count,
) -> Markup:
    """A ranking: label, value, and where the label leads."""
    most = max((value for _, value, _ in points), default=0) or 1
    rows = [
        Markup(
            '<li><span class="bar-label">{}</span><span class="bar-value">{}</span>'
            '<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
            '<rect class="track" width="100" height="6"/><rect class="s0" width="{:.2f}" height="6"/></svg></li>'
        ).format(
            Markup('<a href="{}">{}</a>').format(href, label) if href else label,
            format(value),
            max(0.0, value) / most * 100,
        )
        for label, value, href in points
    ]
    return Markup('<ol class="bars" aria-label="{}">{}</ol>').format(title, Markup("").join(rows))


def cohorts(title: str, head: Sequence[str], rows: Sequence[tuple[str, Sequence[float | None]]]) -> Markup:
    """Fractions by cohort and age, shaded; `head`: the first column and the ages."""
    body = [
        Markup('<tr><th scope="row">{}</th>{}</tr>').format(
            label,
            Markup("").join(
                Markup('<td class="heat h{}">{}</td>').format(_shade(value), f"{value * 100:.0f} %")
                if value is not None
                else Markup("<td></td>")
                for value in values
            ),
        )
        for label, values in rows
    ]
    heads = Markup("").join(Markup('<th scope="col">{}</th>').format(each) for each in head)
    return Markup(
        '<div class="scroll" tabindex="0" role="region" aria-label="{0}"><table class="plain cohorts">'
        '<caption class="unseen">{0}</caption><thead><tr>{1}</tr></thead><tbody>{2}</tbody></table></div>'
    ).format(title, heads, Markup("").join(body))


def usage_bar(used: float, allowance: float | None, grants: float = 0, overage: float = 0) -> Markup:
    """How much of what may be used is used. The text beside it says it in numbers."""
    if allowance is None:
        return Markup("")
    whole = max(1.0, allowance + grants + overage, used)
    parts = [
        ("inside" if used < 0.8 * (allowance + grants) else "near", 0.0, min(used, allowance + grants)),
        ("over", allowance + grants, used),
    ]
    marks = [(allowance, grants > 0), (allowance + grants, overage > 0)]
    rects = Markup("").join(
        Markup('<rect class="{}" x="{:.2f}" width="{:.2f}" height="8"/>').format(
            kind, begin / whole * 100, max(0.0, end - begin) / whole * 100
        )
        for kind, begin, end in parts
        if end > begin
    )
    lines = Markup("").join(
        Markup('<rect class="mark" x="{:.2f}" width="0.6" height="8"/>').format(at / whole * 100)
        for at, there in marks
        if there
    )
    return Markup(
        '<svg class="usage-bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="8"/>{}{}</svg>'
    ).format(rects, lines)


def _runs(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """What is known without a gap."""
    runs: list[list[tuple[int, float]]] = [[]]
    for place, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((place, value))
    return [run for run in runs if run]


def _shade(fraction: float) -> int:
    return round(min(1.0, max(0.0, fraction)) * 9)
