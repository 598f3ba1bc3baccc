"""The loss curve as a picture: an SVG, written here, because a plotting library is larger than the adapter. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

Points = Sequence[tuple[float, float]]
WIDTH, HEIGHT, LEFT, BOTTOM, EDGE = 640, 320, 64, 36, 16
COLOURS: Final = {"loss": "#1f6feb", "eval_loss": "#d1242f"}


def points(history: Sequence[Mapping[str, float]], name: str) -> Points:
    """Return step and value of every reading of a metric that is a number."""
    found = [(float(one["step"]), float(one[name])) for one in history if name in one and "step" in one]
    return [(step, value) for step, value in found if math.isfinite(value)]


def svg(history: Sequence[Mapping[str, float]]) -> str:
    """Return the picture of the loss, and of the loss on the held-out rows, by step."""
    lines = {name: points(history, name) for name in COLOURS}
    known = [point for line in lines.values() for point in line]
    if not known:
        return _picture([_text(WIDTH / 2, HEIGHT / 2, "no loss was read", anchor="middle")])
    steps, values = [step for step, _ in known], [value for _, value in known]
    low, high = min(0.0, *values), max(values)
    high = high if high > low else low + 1
    first, last = min(steps), max(steps)
    last = last if last > first else first + 1

    def place(step: float, value: float) -> tuple[float, float]:
        across = LEFT + (step - first) / (last - first) * (WIDTH - LEFT - EDGE)
        return across, HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - BOTTOM - EDGE)

    parts = []
    for value in (low, (low + high) / 2, high):
        _, y = place(first, value)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - EDGE}" stroke="#d0d7de"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{value:.3g}", anchor="end"))
    parts.append(_text(LEFT, HEIGHT - 12, f"step {first:.0f}"))
    parts.append(_text(WIDTH - EDGE, HEIGHT - 12, f"step {last:.0f}", anchor="end"))
    drawn = [(name, line) for name, line in lines.items() if line]
    for number, (name, line) in enumerate(drawn):
        track = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line))
        shape = {"fill": "none", "stroke": COLOURS[name], "stroke-width": "2"}
        attributes = " ".join(f'{key}="{value}"' for key, value in shape.items())
        if len(line) == 1:
            x, y = place(*line[0])
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLOURS[name]}"/>')
        else:
            parts.append(f'<polyline points="{track}" {attributes}/>')
        parts.append(_text(WIDTH - EDGE, EDGE + 14 + 18 * number, name, anchor="end", colour=COLOURS[name]))
    return _picture(parts)


def _picture(parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="#ffffff"/>', *parts, "</svg>"]) + "\n"


def _text(x: float, y: float, words: str, *, anchor: str = "start", colour: str = "#1f2328") -> str:
    style = f'font-family="sans-serif" font-size="12" fill="{colour}" text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{words}</text>'
