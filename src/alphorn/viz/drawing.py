"""A graph of layers as an SVG: boxes, badges of masks, edges."""

import hashlib
import html
from dataclasses import dataclass, field
from itertools import pairwise

from alphorn.flow import Edge, Stop
from alphorn.viz.layout import Placed, place
from alphorn.viz.style import FATES, style

_PAD, _MARGIN = 14.0, 28.0
_TITLE, _NAME, _BADGE, _QUIET = 18, 14, 11.5, 12
_LEAST, _MOST = 190.0, 440.0
_WHY_LINES = 6
# Widths of characters by the size of the font: a little more than common fonts need.
_NARROW, _WIDE, _BOLD = "fijlrtI.,:;'|!()[] ", "mwMW@%", 1.13


@dataclass
class _Box:
    """A stop with its size and the lines of text in it; a group has a layout inside."""

    stop: Stop
    width: float = 0.0
    head: float = 0.0
    height: float = 0.0
    why: list[str] = field(default_factory=list)
    inside: "_Scene | None" = None


@dataclass
class _Scene:
    """Boxes of one level, their layout, and the edges that the routes belong to."""

    boxes: list[_Box]
    placed: Placed
    edges: list[Edge]
    shift: int  # virtual boxes before the first
    leaving: int = 0  # how many of the last edges lead out of the group


def draw(flow: Stop, expand: bool) -> str:
    """Returns a whole SVG.

    Args:
        flow: The stop of a model.
        expand: Whether layers of inner models are drawn inside them.
    """
    scene = _scene(flow.children, expand, virtual=False)
    stops = list(flow.walk()) if expand else list(flow.children)
    legend = _legend(stops)
    title = f"Masks in {flow.name} ({flow.kind})"
    width = max(scene.placed.width, legend[1], _text_width(title, _TITLE)) + 2 * _MARGIN
    top = _MARGIN + 24 + legend[2]
    height = top + scene.placed.height + _MARGIN
    left = (width - scene.placed.width) / 2
    body = "\n".join(
        [
            f'<rect class="page" width="{width:.0f}" height="{height:.0f}" rx="10"/>',
            f'<text class="title" x="{_MARGIN:.0f}" y="{_MARGIN + 14:.0f}">{_safe(title)}</text>',
            *legend[0],
            *_drawn(scene, left, top),
        ]
    )
    described = _description(stops)
    key = hashlib.sha256((body + described).encode()).hexdigest()[:10]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="alphorn-flow" role="img"'
            f' aria-labelledby="title-{key} desc-{key}" width="{width:.0f}" height="{height:.0f}"'
            f' viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:100%;height:auto">',
            f'<title id="title-{key}">{_safe(title)}</title>',
            f'<desc id="desc-{key}">{_safe(described)}</desc>',
            f"<style>{style()}</style>",
            "<defs>",
            _marker(f"tip-{key}", "tip"),
            _marker(f"masked-tip-{key}", "tip masked"),
            "</defs>",
            body.replace("#KEY", key),
            "</svg>",
        ]
    )


def _marker(name: str, kind: str) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8"'
        f' markerUnits="userSpaceOnUse" orient="auto"><path class="{kind}" d="M0 0L8 4L0 8z"/>'
        "</marker>"
    )


def _description(stops: list[Stop]) -> str:
    parts = [
        f"{s.name} ({s.kind}) {_shapes(s)}" + (f": mask {_badge(s)}, {s.why}" if s.fate else "")
        for s in stops
    ]
    return ". ".join(parts)


# --- sizes


def _scene(stops: tuple[Stop, ...], expand: bool, virtual: bool) -> _Scene:
    boxes = [_box(stop, expand) for stop in stops]
    shift = int(virtual)
    sizes = [(box.width, box.height) for box in boxes]
    pairs = [
        (shift + e.source if e.source is not None else 0, shift + i, e)
        for i, stop in enumerate(stops)
        for e in stop.edges
        if virtual or e.source is not None
    ]
    leaving = []
    if virtual:
        end = len(boxes) + 1
        sizes = [(0.0, 0.0), *sizes, (0.0, 0.0)]
        leaving = [(1 + i, end, Edge(i, s.mask)) for i, s in enumerate(stops) if s.gives]
        pairs += leaving
    placed = place(sizes, [(a, b) for a, b, _ in pairs])
    for (source, target, _), route in zip(pairs, placed.routes, strict=True):
        if virtual and source == 0:  # lines enter and leave a group in its middle
            route[0] = (placed.width / 2, route[0][1])
        if virtual and target == len(boxes) + 1:
            route[-1] = (placed.width / 2, route[-1][1])
    return _Scene(boxes, placed, [e for *_, e in pairs], shift, len(leaving))


def _box(stop: Stop, expand: bool) -> _Box:
    box = _Box(stop)
    wide = max(
        _text_width(stop.name, _NAME) + 10 + _text_width(stop.kind, _QUIET),
        len(_shapes(stop)) * 7.4,
        _text_width(_badge(stop), _BADGE) + 18 if stop.fate else 0.0,
        min(_text_width(stop.why, _QUIET), 300.0) if stop.fate else 0.0,
    )
    box.width = min(max(wide + 2 * _PAD + 4, _LEAST), _MOST)
    box.head = 56.0
    if stop.fate:
        box.why = _wrapped(stop.why, box.width - 2 * _PAD - 4)
        box.head = 76.0 + 16 * len(box.why) + 10
    box.height = box.head
    if expand and stop.children:
        box.inside = _scene(stop.children, expand, virtual=True)
        box.width = max(box.width, box.inside.placed.width + 2 * 22)
        box.height = box.head + box.inside.placed.height
    return box


def _text_width(text: str, size: float) -> float:
    units = sum(_units(c) for c in text)
    return units * size * (_BOLD if size in (_NAME, _BADGE, _TITLE) else 1)


def _units(c: str) -> float:
    if c in _NARROW:
        return 0.38
    return 0.95 if c in _WIDE or ord(c) > 0x2E7F else 0.74 if c.isupper() else 0.62


def _cut(text: str, width: float, size: float) -> str:
    if _text_width(text, size) <= width:
        return text
    while text and _text_width(text + "…", size) > width:
        text = text[:-1]
    return text + "…"


def _wrapped(text: str, width: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _text_width(longer, _QUIET) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    if len(lines) > _WHY_LINES:
        lines = [*lines[: _WHY_LINES - 1], " ".join(lines[_WHY_LINES - 1 :])]
    return [_cut(line, width, _QUIET) for line in lines if line]


def _shapes(stop: Stop) -> str:
    return ", ".join(map(str, stop.shapes)) or "no output"


def _badge(stop: Stop) -> str:
    return stop.fate if stop.mask is None else f"{stop.fate} {stop.mask}"


# --- drawing


def _drawn(scene: _Scene, x: float, y: float) -> list[str]:
    parts = []
    for i, (edge, route) in enumerate(zip(scene.edges, scene.placed.routes, strict=True)):
        tip = i < len(scene.edges) - scene.leaving
        parts.append(_edge(edge, [(px + x, py + y) for px, py in route], tip))
    for box, (bx, by) in zip(scene.boxes, scene.placed.corners[scene.shift :], strict=False):
        parts += _drawn_box(box, bx + x, by + y)
    return parts


def _edge(edge: Edge, points: list[tuple[float, float]], tip: bool) -> str:
    path = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (ax, ay), (bx, by) in pairwise(points):
        if abs(ax - bx) < 0.5:
            path.append(f"L{bx:.1f} {by:.1f}")
        else:
            half = (ay + by) / 2
            path.append(f"C{ax:.1f} {half:.1f} {bx:.1f} {half:.1f} {bx:.1f} {by:.1f}")
    kind = "edge" + (" masked" if edge.mask else "") + (" loose" if edge.loose else "")
    end = f' marker-end="url(#{"masked-tip" if edge.mask else "tip"}-#KEY)"' if tip else ""
    says = f"carries a mask {edge.mask}" if edge.mask else "carries no mask"
    says += "; code of the model itself stands in between" if edge.loose else ""
    return f'<path class="{kind}" d="{"".join(path)}"{end}><title>{says}</title></path>'


def _drawn_box(box: _Box, x: float, y: float) -> list[str]:
    stop = box.stop
    inner = box.width - 2 * _PAD - 4
    left = x + _PAD + 4
    kind_width = _text_width(stop.kind, _QUIET)
    name = _cut(stop.name, max(inner - kind_width - 10, inner * 0.5), _NAME)
    kind = _cut(stop.kind, inner - _text_width(name, _NAME) - 10, _QUIET)
    size = f'width="{box.width:.1f}" height="{box.height:.1f}"'
    full = f"{stop.name} ({stop.kind}) {_shapes(stop)}" + (f"\n{stop.why}" if stop.why else "")
    parts = [
        "<g>",
        f"<title>{_safe(full)}</title>",
        f'<rect class="{"group" if box.inside else "box"}" x="{x:.1f}" y="{y:.1f}" {size} rx="9"/>',
    ]
    if stop.fate:
        parts.append(
            f'<path class="{stop.fate}" d="M{x + 5:.1f} {y:.1f}h-.5a4.5 9 0 0 0-4.5 9'
            f'v{box.height - 18:.1f}a4.5 9 0 0 0 4.5 9h.5z"/>'
        )
    parts += [
        f'<text x="{left:.1f}" y="{y + 24:.1f}"><tspan class="name">{_safe(name)}</tspan>'
        f'<tspan class="quiet" dx="8">{_safe(kind)}</tspan></text>',
        f'<text class="shape" x="{left:.1f}" y="{y + 43:.1f}">'
        f"{_safe(_shapes(stop)[: int(inner / 7.4)])}</text>",
    ]
    if stop.fate:
        parts += _pill(stop.fate, _badge(stop), left, y + 54)
        for i, line in enumerate(box.why):
            parts.append(
                f'<text class="quiet" x="{left:.1f}" y="{y + 90 + 16 * i:.1f}">{_safe(line)}</text>'
            )
    if box.inside is not None:
        at = x + (box.width - box.inside.placed.width) / 2
        line = f'<path class="rule" d="M{x + 5:.1f} {y + box.head:.1f}h{box.width - 5:.1f}"/>'
        parts += [line, *_drawn(box.inside, at, y + box.head)]
    return [*parts, "</g>"]


def _pill(fate: str, text: str, x: float, y: float) -> list[str]:
    width = _text_width(text, _BADGE) + 16
    return [
        f'<rect class="{fate}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="19" rx="9.5"/>',
        f'<text class="badge on-{fate}" x="{x + width / 2:.1f}" y="{y + 13.5:.1f}"'
        f' text-anchor="middle">{_safe(text)}</text>',
    ]


def _legend(stops: list[Stop]) -> tuple[list[str], float, float]:
    """Returns the parts of the legend, its width, and its height: the fates that occur, the edges."""
    present = {s.fate for s in stops}
    loose = any(e.loose for s in stops for e in s.edges)
    x, y = _MARGIN, _MARGIN + 36
    parts: list[str] = []
    for kind, text in (("masked", "mask"), ("", "no mask"), ("loose", "through code between")):
        if kind == "loose" and not loose:
            continue
        parts.append(f'<path class="edge {kind}" d="M{x:.1f} {y:.1f}h26"/>')
        parts.append(f'<text class="quiet" x="{x + 33:.1f}" y="{y + 4:.1f}">{text}</text>')
        x += 33 + _text_width(text, _QUIET) + 18
    width = x - _MARGIN
    x, y = _MARGIN, y + 16
    for fate in FATES:
        if fate in present:
            parts += _pill(fate, fate, x, y)
            x += _text_width(fate, _BADGE) + 16 + 8
    return parts, max(width, x - _MARGIN), 78.0 if any(present) else 52.0


def _safe(text: str) -> str:
    """Returns text as XML may hold it."""
    return html.escape("".join(c if c.isprintable() or c in "\n" else "\ufffd" for c in text))
