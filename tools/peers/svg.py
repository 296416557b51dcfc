"""Charts as hand-written SVG: lines and groups of bars. They have their own background, in a light and a dark version."""
import math
from html import escape

WIDTH, HEIGHT = 780, 420
LEFT, RIGHT, TOP, BOTTOM = 66, 140, 58, 56

# In the order of the series. Colours that can be distinguished with any kind of colour vision, for light and dark pages. Shapes distinguish
# the series without colours.
LIGHT = ["#0060a8", "#00805e", "#b35c00", "#a8478a"]
DARK = ["#5cb8f5", "#3ccfa0", "#f0a848", "#e08cc4"]
SHAPES = ["circle", "square", "diamond", "triangle"]

# The height of a label, in pixels.
LABEL_HEIGHT = 17


def style():
    """The page's colours, by the reader's preference for light or dark."""
    def rules(page, ink, faint, colours):
        own = "".join(f".s{at}{{stroke:{colour};fill:{colour}}}" for at, colour in enumerate(colours))
        return f".page{{fill:{page}}}text{{fill:{ink}}}.grid{{stroke:{faint}}}.axis{{stroke:{ink}}}{own}"

    return (
        "<style>text{font:13px system-ui,'Segoe UI',Helvetica,Arial,sans-serif}.title{font-size:16px;font-weight:600}"
        ".name{font-weight:600;stroke:none}.line{fill:none;stroke-width:2.5;stroke-linejoin:round}"
        f"{rules('#ffffff', '#24292f', '#d8dee4', LIGHT)}"
        f"@media (prefers-color-scheme:dark){{{rules('#0d1117', '#e6edf3', '#30363d', DARK)}}}"
        ".line{fill:none}text.name{stroke:none}</style>"
    )


def steps(most):
    """About five round values, from 0 to at least `most`."""
    raw = most / 5
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * by for by in (1, 2, 2.5, 5, 10) if power * by >= raw)
    return [step * at for at in range(math.ceil(most / step - 1e-9) + 1)]


def short(value):
    """A value formatted for an axis."""
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:g}"


class Chart:
    """A title, a y axis from 0, and the drawing."""

    def __init__(self, title, y_title, x_title, most):
        self.title, self.parts = title, []
        self.ticks = steps(most)
        self.bottom, self.right = HEIGHT - BOTTOM, WIDTH - RIGHT
        for tick in self.ticks:
            y = self.y(tick)
            self.parts.append(f'<line class="grid" x1="{LEFT}" x2="{self.right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            self.text(LEFT - 8, y + 4, short(tick), "end")
        self.parts.append(f'<line class="axis" x1="{LEFT}" x2="{self.right}" y1="{self.bottom}" y2="{self.bottom}"/>')
        self.text(LEFT, 25, title, kind="title")
        self.text(LEFT, 45, y_title)
        self.text((LEFT + self.right) / 2, HEIGHT - 12, x_title, "middle")

    def y(self, value):
        return self.bottom - value / self.ticks[-1] * (self.bottom - TOP)

    def text(self, x, y, text, anchor="start", kind=""):
        kind = f' class="{kind}"' if kind else ""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(text)}</text>')

    def mark(self, series, x, y, size=4.5):
        """Draws the shape of a series."""
        shape = SHAPES[series % len(SHAPES)]
        if shape == "circle":
            self.parts.append(f'<circle class="s{series}" cx="{x:.1f}" cy="{y:.1f}" r="{size}"/>')
            return
        corners = {
            "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
            "diamond": [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
            "triangle": [(0, -1.2), (1.1, 0.9), (-1.1, 0.9)],
        }[shape]
        points = " ".join(f"{x + dx * size:.1f},{y + dy * size:.1f}" for dx, dy in corners)
        self.parts.append(f'<polygon class="s{series}" points="{points}"/>')

    def svg(self):
        head = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
                f'role="img" aria-label="{escape(self.title)}">')
        page = f'<rect class="page" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
        return "\n".join([head, f"<title>{escape(self.title)}</title>", style(), page, *self.parts, "</svg>"]) + "\n"


def lines(title, y_title, x_title, positions, names, series):
    """A line chart. `positions` are from 0 to 1 on the x axis, `names` their labels or None, `series` is [(name, values)].

    A value of None omits its point.
    """
    chart = Chart(title, y_title, x_title, max(value for _, values in series for value in values if value is not None) * 1.02)
    xs = [LEFT + 10 + place * (chart.right - LEFT - 20) for place in positions]
    for x, name in zip(xs, names):
        if name:
            chart.text(x, chart.bottom + 20, name, "middle")
    # Labels at the ends of the lines, moved apart if they would overlap.
    ends = sorted((chart.y(next(value for value in reversed(values) if value is not None)), at) for at, (_, values) in enumerate(series))
    labels, above = {}, -math.inf
    for y, at in ends:
        above = labels[at] = max(y, above + LABEL_HEIGHT)
    excess = max(0, above - chart.bottom)
    # The first series is drawn last, to be on top.
    for at, (name, values) in reversed(list(enumerate(series))):
        points = [(x, chart.y(value)) for x, value in zip(xs, values) if value is not None]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        chart.parts.append(f'<polyline class="s{at} line" points="{path}"/>')
        for x, y in points:
            chart.mark(at, x, y)
        chart.text(chart.right + 8, labels[at] - excess + 4, name, kind=f"s{at} name")
    return chart.svg()


def bars(title, y_title, groups, names, values):
    """A bar chart. `groups` are the labels below, `names` the series, `values[series][group]` the heights."""
    chart = Chart(title, y_title, "", max(max(row) for row in values))
    room = (chart.right - LEFT) / len(groups)
    wide = room * 0.78 / len(names)
    for at, group in enumerate(groups):
        start = LEFT + at * room + room * 0.11
        for series, row in enumerate(values):
            top = chart.y(row[at])
            x = start + series * wide
            chart.parts.append(f'<rect class="s{series}" stroke="none" x="{x:.1f}" y="{top:.1f}" width="{wide - 2:.1f}" '
                               f'height="{chart.bottom - top:.1f}"/>')
        for line, words in enumerate(group.split("\n")):
            chart.text(LEFT + at * room + room / 2, chart.bottom + 18 + line * 16, words, "middle")
    for series, name in enumerate(names):
        y = TOP + 12 + series * 22
        chart.mark(series, chart.right + 14, y)
        chart.text(chart.right + 25, y + 4, name, kind=f"s{series} name")
    return chart.svg()
