"""Draws the first whole trace that comes by OTLP: python -m tests.trace_picture FILE.svg [--spans N]

It prints the settings with which a gateway or a control plane sends its spans here, and waits for a trace of so many.
"""

import argparse
from collections.abc import Sequence
from html import escape
from pathlib import Path
from time import monotonic, sleep

from tests.otlp_receiver import Received, collecting

WIDTH, ROW, LABEL, MARGIN = 900, 30, 330, 14
COLOURS = {"server": "#2563eb", "client": "#0d9488", "consumer": "#9333ea", "internal": "#64748b"}
WAIT_SECONDS = 300.0


def drawn(spans: Sequence[Received]) -> str:
    """An SVG of one trace, whose spans come in the order in which they began."""
    began = min(span.began_ns for span in spans)
    whole = max(span.ended_ns for span in spans) - began or 1
    by_id = {span.id: span for span in spans}
    scale = (WIDTH - LABEL - 2 * MARGIN - 70) / whole
    rows = []
    for row, span in enumerate(spans):
        depth, parent = 0, span.parent
        while parent in by_id:
            depth, parent = depth + 1, by_id[parent].parent
        top = MARGIN + 24 + row * ROW
        left, width = LABEL + MARGIN + (span.began_ns - began) * scale, max((span.ended_ns - span.began_ns) * scale, 2)
        name = f"{span.service.removeprefix('quotagate-')}: {span.name}"
        rows.append(
            f'<text x="{MARGIN + depth * 16}" y="{top + 15}">{escape(name)}</text>'
            f'<rect x="{left:.1f}" y="{top + 3}" width="{width:.1f}" height="17" rx="3" fill="{COLOURS[span.kind]}"/>'
            f'<text x="{left + width + 6:.1f}" y="{top + 15}" class="time">{_time(span)}</text>'
        )
    height = 2 * MARGIN + 24 + len(spans) * ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
        f"<title>One trace, {len(spans)} spans</title>"
        "<style>text{font:13px sans-serif;fill:#1e293b}.time{fill:#475569;font-size:11px}</style>"
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
        f'<text x="{MARGIN}" y="{MARGIN + 12}" class="time">trace {spans[0].trace}</text>' + "".join(rows) + "</svg>\n"
    )


def _time(span: Received) -> str:
    return f"{(span.ended_ns - span.began_ns) / 1e6:.2f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--spans", type=int, default=3)
    options = parser.parse_args()
    with collecting() as collector:
        print(f"telemetry: {{endpoint: {collector.url}, ratio: 1.0}}", flush=True)  # noqa: T201 - a tool prints
        end = monotonic() + WAIT_SECONDS
        while monotonic() < end:
            for trace in {span.trace for span in list(collector.spans)}:
                spans = collector.trace(trace)
                if len(spans) >= options.spans and any(span.kind == "server" for span in spans):
                    options.file.write_text(drawn(spans))
                    return
            sleep(0.2)
    raise SystemExit("no trace of so many spans came")


if __name__ == "__main__":
    main()
