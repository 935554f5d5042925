"""Ticks per second against the size of the book, the same number of accounts in danger: does the cost follow the danger?

`PYTHONPATH=. python tests/benchmarks/bench_growth.py [picture.svg]`: books of 2,000 to 1,000,000 accounts with ten positions each, 500 of
them near a threshold, 1.5 bp a tick, background pass included; beside it the same engine with everything hot. Prints one JSON line a
size and draws the picture of docs/benchmarks.md. Rates are ticks per CPU second, medians of five runs.
"""

from __future__ import annotations

import gc
import json
import math
import statistics
import sys
from pathlib import Path

from monitor.service.bench import HOT_MOVES, Workload, engine_of, settled, timed

SIZES = (2_000, 20_000, 200_000, 1_000_000)
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 680, 360, 120, 130, 20, 50
LINES = (("hot and cold", "hot_cold", "#1f77b4"), ("everything hot", "everything_hot", "#d62728"))


def measured(accounts: int, *, danger: int = 500, step_bp: float = 1.5) -> dict[str, int]:
    """Rates of both engines on one book."""
    found = {"accounts": accounts}
    workload = Workload.make(accounts, danger=danger)
    for name, hot_moves in (("hot_cold", HOT_MOVES), ("everything_hot", math.inf)):
        engine = engine_of(workload, hot_moves=hot_moves)
        stream = workload.messages(step_bp)
        count = 400 if name == "hot_cold" else max(3, min(400, 20_000_000 // accounts // 100))
        settled(engine, stream, 60 if name == "hot_cold" else 3)
        background = name == "hot_cold"
        runs = [timed(engine, [next(stream) for _ in range(count)], background=background).ticks_per_second for _ in range(5)]
        found[name] = round(statistics.median(runs))
        del engine
        gc.collect()
    return found


def picture(rows: list[dict[str, int]]) -> str:
    """Both axes logarithmic; an SVG that reads on a light and on a dark page."""
    decades_x = (math.log10(rows[0]["accounts"]), math.log10(rows[-1]["accounts"]))
    rates = [row[key] for row in rows for _, key, _ in LINES]
    decades_y = (math.floor(math.log10(min(rates))), math.ceil(math.log10(max(rates)) - 0.1))

    def x(accounts: float) -> float:
        return LEFT + (math.log10(accounts) - decades_x[0]) / (decades_x[1] - decades_x[0]) * (WIDTH - LEFT - RIGHT)

    def y(rate: float) -> float:
        return HEIGHT - BOTTOM - (math.log10(rate) - decades_y[0]) / (decades_y[1] - decades_y[0]) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12" fill="#808080">',
        "<title>Ticks per second against accounts, 500 of them near a threshold</title>",
    ]
    for decade in range(decades_y[0], decades_y[1] + 1):
        at = y(10**decade)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#80808055"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{10**decade:,}</text>')
    below = HEIGHT - BOTTOM + 18
    parts += [f'<text x="{x(row["accounts"]):.1f}" y="{below}" text-anchor="middle">{row["accounts"]:,}</text>' for row in rows]
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">accounts (10 positions each)</text>')
    parts.append(
        f'<text x="14" y="{HEIGHT / 2}" text-anchor="middle" transform="rotate(-90 14 {HEIGHT / 2})">ticks a second, one core</text>'
    )
    for label, key, colour in LINES:
        points = [(x(row["accounts"]), y(row[key])) for row in rows]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.5" fill="{colour}"/>' for px, py in points]
        parts.append(f'<text x="{points[-1][0] + 10:.1f}" y="{points[-1][1] + 4:.1f}" fill="{colour}">{label}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main(target: str | None = None) -> None:
    """Measures all sizes."""
    rows = []
    for accounts in SIZES:
        rows.append(measured(accounts))
        print(json.dumps(rows[-1]), flush=True)
    if target is not None:
        Path(target).write_text(picture(rows), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:2])
