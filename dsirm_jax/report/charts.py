"""Small SVG charts whose colours come from the page's style sheet."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

LINE = (260, 90)
BARS = (260, 64)


def line(points: Sequence[tuple[int, float]], *, label: str) -> Markup:
    """Returns one curve over steps, its first and last value written at its ends.

    Args:
      points: (step, value), steps ascending.
      label: what a screen reader says.
    """
    width, height = LINE
    steps, values = [p[0] for p in points], [p[1] for p in points]
    low, high = min(values), max(values)
    span, reach = (high - low) or 1.0, (steps[-1] - steps[0]) or 1

    def place(step: int, value: float) -> str:
        x = 4 + (width - 8) * (step - steps[0]) / reach
        y = 16 + (height - 32) * (high - value) / span
        return f"{x:.1f},{y:.1f}"

    path = " ".join(place(*point) for point in points)
    return Markup(
        '<svg viewBox="0 0 {w} {h}" role="img" aria-label="{label}" class="chart">'
        '<polyline points="{path}" class="line"/>'
        '<text x="4" y="11">{first}</text>'
        '<text x="{right}" y="{bottom}" text-anchor="end">{last}</text></svg>'
    ).format(
        w=width,
        h=height,
        label=f"{label}: from {values[0]:.4g} to {values[-1]:.4g} in {steps[-1]} steps",
        path=path,
        first=f"{values[0]:.4g}",
        last=f"{values[-1]:.4g} at step {steps[-1]:,}",
        right=width - 4,
        bottom=height - 3,
    )


def bars(counts: Sequence[int], *, label: str) -> Markup:
    """Returns the use of codes as bars in descending order; an unused code leaves a gap.

    Args:
      counts: items of each code.
      label: what a screen reader says.
    """
    width, height = BARS
    ordered = sorted(counts, reverse=True)
    step = width / len(ordered)
    most = max(ordered[0], 1)
    rects = Markup("").join(
        Markup('<rect x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}"/>').format(
            i * step, height * (1 - n / most), max(step * 0.85, 0.4), height * n / most
        )
        for i, n in enumerate(ordered)
        if n
    )
    return Markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}" class="chart bars" '
        'preserveAspectRatio="none">{}</svg>'
    ).format(width, height, label, rects)


def intervals(rows: Sequence[tuple[str, float, float, float]], *, label: str) -> Markup:
    """Returns lifts as points with their intervals on one axis that shows zero.

    Args:
      rows: (name, value, low, high).
      label: what a screen reader says.
    """
    width, row_height, left = 640, 30, 190
    height = row_height * len(rows) + 26
    low = min(0.0, *(row[2] for row in rows))
    high = max(0.0, *(row[3] for row in rows))
    margin = 0.06 * ((high - low) or 1.0)
    low, high = low - margin, high + margin

    def x(value: float) -> float:
        return left + (width - left - 10) * (value - low) / (high - low)

    parts = [
        Markup('<line x1="{0:.1f}" x2="{0:.1f}" y1="4" y2="{1}" class="zero"/>').format(
            x(0.0), height - 20
        ),
        Markup('<text x="{:.1f}" y="{}" text-anchor="middle">0</text>').format(x(0.0), height - 5),
    ]
    for index, (name, value, lowest, highest) in enumerate(rows):
        y = row_height * index + 18
        kind = "up" if lowest > 0 else "down" if highest < 0 else "open"
        parts.append(
            Markup(
                '<text x="0" y="{t}">{name}</text>'
                '<line x1="{a:.1f}" x2="{b:.1f}" y1="{y}" y2="{y}" class="span {kind}"/>'
                '<circle cx="{c:.1f}" cy="{y}" r="5" class="dot {kind}"/>'
            ).format(name=name, t=y + 4, y=y, a=x(lowest), b=x(highest), c=x(value), kind=kind)
        )
    return Markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}" class="chart">{}</svg>'
    ).format(width, height, label, Markup("").join(parts))
