"""A drawing with its axes, its legend and its numbers. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from markupsafe import Markup

from control.console.frame.formats import NOTHING
from control.console.frame.scales import Scale

Format = Callable[[float], str]
"""A number as the reader sees it."""
LABELS_MAX = 3  # more of them would touch each other on a telephone


def rect(x: float, y: float, width: float, height: float, kind: str, hint: str) -> Markup:
    return Markup(
        '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
    ).format(kind, x, y, width, max(0.0, height), hint)


def table_of(
    head: Sequence[str], rows: Sequence[tuple[str, Mapping[str, float]]], names: Sequence[str], format: Format
) -> Markup:
    """The numbers by label and series."""
    heads = [Markup('<th scope="col">{}</th>').format(each) if each else Markup("<td></td>") for each in head]
    body = [
        Markup('<tr><th scope="row">{}</th>{}</tr>').format(
            label,
            _joined(
                Markup("<td>{}</td>").format(format(values[name]) if name in values else NOTHING) for name in names
            ),
        )
        for label, values in rows
    ]
    return Markup('<table class="plain"><thead><tr>{}</tr></thead><tbody>{}</tbody></table>').format(
        _joined(heads), _joined(body)
    )


def figure(
    title: str,
    drawn: Markup,
    scale: Scale,
    labels: Sequence[str],
    names: Sequence[str],
    unit: str,
    format: Format,
    table: Markup,
    *,
    each: bool = False,
) -> Markup:
    """`each`: every label is shown, since there are few."""
    rule = Markup('<line class="rule" x1="0" x2="720" y1="{0:.1f}" y2="{0:.1f}"/>')
    few = each or len(labels) <= LABELS_MAX
    shown = labels if few else [labels[0], labels[len(labels) // 2], labels[-1]]
    return Markup(
        '<figure class="chart"><figcaption>{title}{unit}</figcaption>{legend}'
        '<div class="plot"><div class="ticks" aria-hidden="true">{ticks}</div>'
        '<svg viewBox="0 0 720 200" preserveAspectRatio="none" role="img" aria-label="{title}">{rules}{drawn}</svg>'
        '<div class="labels{each}" aria-hidden="true">{labels}</div></div>'
        '<details><summary>Show as a table</summary><div class="scroll" tabindex="0" role="region" '
        'aria-label="{title}, as a table">{table}</div></details></figure>'
    ).format(
        title=title,
        unit=Markup(' <span class="quiet">{}</span>').format(unit) if unit else "",
        legend=_legend(names),
        ticks=_joined(Markup("<span>{}</span>").format(text) for text in _short(map(format, reversed(scale.ticks)))),
        rules=_joined(rule.format(scale.y(tick)) for tick in scale.ticks),
        drawn=drawn,
        each=" each" if each else "",
        labels=_joined(Markup("<span>{}</span>").format(label) for label in shown),
        table=table,
    )


def _short(texts: Iterable[str]) -> Sequence[str]:
    """Without the cents where all are whole."""
    found = list(texts)
    return [text[:-3] for text in found] if all(text.endswith(".00") for text in found) else found


def _legend(names: Sequence[str]) -> Markup:
    if len(names) < 2:
        return Markup("")
    entry = Markup(
        '<li><svg viewBox="0 0 10 10" aria-hidden="true"><rect class="s{}" width="10" height="10"/></svg>{}</li>'
    )
    entries = _joined(entry.format(number, name) for number, name in enumerate(names))
    return Markup('<ul class="legend">{}</ul>').format(entries)


def _joined(parts: Iterable[Markup]) -> Markup:
    return Markup("").join(parts)
