"""Draw bars and curves as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

COLOURS = ("#1f6feb", "#d29922", "#8957e5", "#2da44e", "#cf222e", "#57606a")
WIDTH, LEFT, TOP = 760, 250, 48


def bars(title: str, values: Mapping[str, float], unit: str) -> str:
    """Draw one bar for each value."""
    most = max(values.values(), default=1.0) or 1.0
    parts = []
    for number, (name, value) in enumerate(values.items()):
        y, width = TOP + 26 * number, (WIDTH - LEFT - 130) * value / most
        colour = COLOURS[0] if name.startswith("neverlost") else COLOURS[5]
        parts += [
            _text(LEFT - 8, y + 14, name, "end"),
            f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="18" fill="{colour}"/>',
            _text(LEFT + width + 6, y + 14, f"{value:,.4g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"),
        ]
    return _svg(title, TOP + 26 * len(values) + 12, parts)


def curves(title: str, series: Mapping[str, Sequence[Sequence[float]]], axes: tuple[str, str]) -> str:
    """Draw one curve for each series of points, with the y axis from zero."""
    points = [point for each in series.values() for point in each]
    right, high = max(x for x, _ in points) or 1.0, max(y for _, y in points) or 1.0
    left, bottom, width, height = 70, 330, WIDTH - 90, 280
    parts = [
        f'<path d="M{left} {bottom - height}V{bottom}H{left + width}" fill="none" stroke="#57606a"/>',
        _text(left - 6, bottom, "0", "end"),
        _text(left - 6, bottom - height + 10, f"{high:,.3g}", "end"),
        _text(left + width, bottom + 18, f"{right:,.4g} {axes[0]}", "end"),
        _text(left + 6, bottom - height + 10, axes[1]),
    ]
    for number, (name, each) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{left + width * x / right:.1f},{bottom - height * y / high:.1f}" for x, y in each)
        y = bottom + 40 + 18 * number
        parts += [
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>',
            f'<rect x="{left}" y="{y - 9}" width="14" height="4" fill="{colour}"/>',
            _text(left + 20, y, name),
        ]
    return _svg(title, bottom + 44 + 18 * len(series), parts)


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="14" y="24" font-size="15">{escape(title)}</text>'
    )
    return "\n".join([head, *parts, "</svg>\n"])
