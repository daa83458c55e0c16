"""A chart of lines over time, as SVG: what a table of slopes does not show."""

from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 760, 300, 50, 30, 34
_COLORS = ("#2f7ed8", "#d9822b", "#3a9d5d", "#7a8899", "#a2559c", "#c23b3b")
_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2933 }
  .title { font-size: 16px; font-weight: 600 }
  line { stroke: #7a8899; stroke-opacity: 0.4 }
  @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } }
"""


def lines(title: str, unit: str, series: Mapping[str, Points]) -> str:
    """Each by its name, from 0 upwards; minutes to the right."""
    points = [point for each in series.values() for point in each]
    longest = max((minutes for minutes, _ in points), default=1.0) or 1.0
    highest = 1.1 * max((value for _, value in points), default=1.0) or 1.0
    wide, tall = _WIDTH - _LEFT - 10, _HEIGHT - _BOTTOM - _TOP
    parts = [f'<text class="title" x="0" y="20">{escape(title)}</text>']
    for at in range(5):
        y = _TOP + tall * (1 - at / 4)
        parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - 10}" y2="{y:.1f}"/>')
        parts.append(f'<text x="0" y="{y + 4:.1f}">{highest * at / 4:,.0f}</text>')
    parts.append(f'<text x="{_LEFT}" y="{_HEIGHT - 8}">0</text>')
    parts.append(f'<text x="{_WIDTH - 10}" y="{_HEIGHT - 8}" text-anchor="end">{longest:,.0f} minutes, {unit}</text>')
    y = _HEIGHT + 14
    for number, (name, each) in enumerate(series.items()):
        color = _COLORS[number % len(_COLORS)]
        path = " ".join(
            f"{_LEFT + wide * minutes / longest:.1f},{_TOP + tall * (1 - value / highest):.1f}"
            for minutes, value in each
        )
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        parts.append(f'<rect x="{_LEFT}" y="{y - 10}" width="12" height="12" fill="{color}"/>')
        parts.append(f'<text x="{_LEFT + 18}" y="{y}">{escape(name)}</text>')
        y += 20
    size = f'viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" height="{y}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    return "\n".join((head, f"<title>{escape(title)}</title><style>{_STYLE}</style>", *parts, "</svg>\n"))
