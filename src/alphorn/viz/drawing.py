"""A graph of layers as an SVG: boxes, badges of masks, edges."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from alphorn.flow import Edge, Stop
from alphorn.viz.boxes import (
    BADGE,
    QUIET,
    TITLE,
    Box,
    Shown,
    badge,
    pill,
    safe,
    shapes_of,
    text_width,
)
from alphorn.viz.layout import BELOW, Placed, place
from alphorn.viz.style import FATES, style

_MARGIN, _GROUP, _ROUND = 28.0, 22.0, 7.0

Point = tuple[float, float]


@dataclass
class _Scene:
    """Boxes of one level, their layout as if edges led down, and the edges that its routes are of."""

    boxes: list[Box]
    placed: Placed
    edges: list[Edge]
    shown: Shown
    shift: int  # virtual boxes before the first
    leaving: int = 0  # how many of the last edges lead out of the group

    def __post_init__(self) -> None:
        wide, high = self.placed.width, self.placed.height
        self.width, self.height = (high, wide) if self.lies else (wide, high)

    @property
    def lies(self) -> bool:
        """Whether edges lead to a side."""
        return self.shown.rankdir in ("LR", "RL")

    def at(self, x: float, y: float, width: float = 0.0, height: float = 0.0) -> Point:
        """Returns the upper left corner of what the layout has at `x, y`, of a size as drawn."""
        if self.lies:
            return (self.width - y - width if self.shown.rankdir == "RL" else y), x
        return x, self.height - y - height if self.shown.rankdir == "BT" else y


def draw(flow: Stop, shown: Shown) -> str:
    """Returns a whole SVG.

    Args:
        flow: The stop of a model.
        shown: What is shown of it.
    """
    stops = list(flow.walk()) if shown.inner else list(flow.children)
    calls = Counter(id(s.operation) for s in stops if s.operation is not None)
    scene = _scene(flow.children, shown, calls, virtual=False)
    legend, legend_width, legend_height = _legend(stops, shown)
    heading = text_width(shown.title, TITLE)
    width = max(scene.width, legend_width, heading) + 2 * _MARGIN
    top = _MARGIN + (24 if shown.title else -14 if legend else 0) + legend_height
    height = top + scene.height + _MARGIN
    title = shown.title or f"{flow.name} ({flow.kind})"
    body = [
        f'<rect class="page" width="{width:.0f}" height="{height:.0f}" rx="10"/>',
        *legend,
        *_drawn(scene, (width - scene.width) / 2, top),
    ]
    if shown.title:
        where = f'x="{_MARGIN:.0f}" y="{_MARGIN + 14:.0f}"'
        body.insert(1, f'<text class="title" {where}>{safe(title)}</text>')
    return _whole("\n".join(body), title, _description(stops, shown), width, height)


def _whole(body: str, title: str, described: str, width: float, height: float) -> str:
    key = hashlib.sha256((body + described).encode()).hexdigest()[:10]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="alphorn-flow" role="img"'
            f' aria-labelledby="title-{key} desc-{key}" width="{width:.0f}" height="{height:.0f}"'
            f' viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:100%;height:auto">',
            f'<title id="title-{key}">{safe(title)}</title>',
            f'<desc id="desc-{key}">{safe(described)}</desc>',
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


def _description(stops: list[Stop], shown: Shown) -> str:
    parts = [
        f"{s.name} ({s.kind}) {shapes_of(s)}"
        + (f": mask {badge(s)}, {s.why}" if s.fate and shown.masks else "")
        for s in stops
    ]
    return ". ".join(parts)


# --- sizes


def _scene(stops: tuple[Stop, ...], shown: Shown, calls: Counter, virtual: bool) -> _Scene:
    boxes = [_box(stop, shown, calls) for stop in stops]
    shift = int(virtual)
    pairs = [
        (shift + e.source if e.source is not None else 0, shift + i, e)
        for i, stop in enumerate(stops)
        for e in stop.edges
        if virtual or e.source is not None
    ]
    sizes = [(box.width, box.height) for box in boxes]
    leaving = []
    if virtual:
        end = len(boxes) + 1
        sizes = [(0.0, 0.0), *sizes, (0.0, 0.0)]
        leaving = [(1 + i, end, Edge(i, s.mask)) for i, s in enumerate(stops) if s.gives]
        pairs += leaving
    lies = shown.rankdir in ("LR", "RL")
    turned = [(h, w) for w, h in sizes] if lies else sizes
    placed = place(turned, [(a, b) for a, b, _ in pairs])
    return _Scene(boxes, placed, [e for *_, e in pairs], shown, shift, len(leaving))


def _box(stop: Stop, shown: Shown, calls: Counter) -> Box:
    box = Box(stop, shown, calls[id(stop.operation)])
    if shown.inner and stop.children:
        inside = box.inside = _scene(stop.children, shown, calls, virtual=True)
        beside, below = (0.0, 2 * _GROUP) if inside.lies else (2 * _GROUP, 0.0)
        box.width = max(box.width, inside.width + beside)
        box.height = box.head + inside.height + below
        middle = inside.placed.width / 2
        if inside.lies:  # edges come to the middle of the box, not of what is inside
            middle = box.height / 2 - box.head - _GROUP
            inside.width = box.width
        _through_the_middle(inside, middle)
    return box


def _through_the_middle(inside: _Scene, middle: float) -> None:
    """Has edges enter and leave a group in the middle of its sides."""
    routes, far = inside.placed.routes, inside.width if inside.lies else inside.height
    for route in routes:
        if route[0][1] == 0.0:
            route[0] = (middle, 0.0)
    for route in routes[len(routes) - inside.leaving :]:
        route[-1] = (middle, far)


# --- drawing


def _drawn(scene: _Scene, x: float, y: float) -> list[str]:
    tracks = _tracks(scene.placed.routes) if scene.shown.splines == "ortho" else {}
    parts = []
    for i, (edge, route) in enumerate(zip(scene.edges, scene.placed.routes, strict=True)):
        path = _path(route, scene.shown.splines, tracks)
        tip = i < len(scene.edges) - scene.leaving
        turned = [(c, [(x + a, y + b) for a, b in (scene.at(*p) for p in ps)]) for c, ps in path]
        parts.append(_edge(edge, turned, tip, scene.shown.masks))
    for box, corner in zip(scene.boxes, scene.placed.corners[scene.shift :], strict=False):
        left, top = scene.at(*corner, box.width, box.height)
        parts += _drawn_box(box, left + x, top + y)
    return parts


def _drawn_box(box: Box, x: float, y: float) -> list[str]:
    parts = ["<g>", *box.drawn(x, y)]
    if box.inside is not None:
        line = f'<path class="rule" d="M{x:.1f} {y + box.head:.1f}h{box.width:.1f}"/>'
        down = _GROUP if box.inside.lies else 0.0
        at = x + (box.width - box.inside.width) / 2
        parts += [line, *_drawn(box.inside, at, y + box.head + down)]
    return [*parts, "</g>"]


def _tracks(routes: list[list[Point]]) -> dict[tuple[float, float, float], float]:
    """Returns where between two layers each piece of an edge goes sideways: none on another.

    By the end of the piece, its source and its target; pieces from one source share.
    """
    found: dict[tuple[float, float, float], float] = {}
    by_gap: dict[float, dict[float, list[float]]] = {}
    for route in routes:
        for (ax, _), (bx, by) in pairwise(route):
            if abs(ax - bx) >= 0.5:
                by_gap.setdefault(by, {}).setdefault(ax, []).append(bx)
    for gap, sources in by_gap.items():
        ends: list[float] = []  # of the last piece on each track
        used: dict[float, int] = {}
        for ax, targets in sorted(sources.items(), key=lambda s: min(s[0], *s[1])):
            low, high = min(ax, *targets), max(ax, *targets)
            track = next((i for i, end in enumerate(ends) if end + 6 < low), len(ends))
            ends[track : track + 1] = [high]
            used[ax] = track
        step = BELOW / (len(ends) + 1)
        for ax, track in used.items():
            found |= {(gap, ax, bx): gap - BELOW + step * (track + 1) for bx in sources[ax]}
    return found


def _path(route: list[Point], splines: str, tracks: dict) -> list[tuple[str, list[Point]]]:
    """Returns an edge as commands of a path with their points; sideways only between layers."""
    path = [("M", [route[0]])]
    for (ax, ay), (bx, by) in pairwise(route):
        begin = max(ay, by - BELOW)
        if abs(ax - bx) < 0.5:
            path.append(("L", [(bx, by)]))
            continue
        path += [("L", [(ax, begin)])] if begin > ay else []
        if splines == "ortho":
            path += _bent(ax, bx, by, tracks[by, ax, bx])
        elif splines == "curved":
            half = (begin + by) / 2
            path.append(("C", [(ax, half), (bx, half), (bx, by)]))
        else:
            path.append(("L", [(bx, by)]))
    return path


def _bent(ax: float, bx: float, by: float, track: float) -> Iterable[tuple[str, list[Point]]]:
    """Returns a piece that goes down, sideways at a height and down, with round corners."""
    round_ = min(_ROUND, abs(bx - ax) / 2)
    side = round_ if bx > ax else -round_
    return [
        ("L", [(ax, track - round_)]),
        ("Q", [(ax, track), (ax + side, track)]),
        ("L", [(bx - side, track)]),
        ("Q", [(bx, track), (bx, track + round_)]),
        ("L", [(bx, by)]),
    ]


def _edge(edge: Edge, path: list[tuple[str, list[Point]]], tip: bool, masks: bool) -> str:
    drawn = "".join(f"{c}{' '.join(f'{x:.1f} {y:.1f}' for x, y in points)}" for c, points in path)
    masked = masks and edge.mask
    kind = "edge" + (" masked" if masked else "") + (" loose" if edge.loose else "")
    end = f' marker-end="url(#{"masked-tip" if masked else "tip"}-#KEY)"' if tip else ""
    says = f"carries a mask {edge.mask}" if edge.mask else "carries no mask"
    says += "; code of the model itself stands in between" if edge.loose else ""
    told = f"<title>{says}</title>" if masks else ""
    return f'<path class="{kind}" d="{drawn}"{end}>{told}</path>'


def _legend(stops: list[Stop], shown: Shown) -> tuple[list[str], float, float]:
    """Returns the parts of the legend, its width, and its height: the fates that occur, the edges."""
    present = {s.fate for s in stops if shown.masks}
    loose = any(e.loose for s in stops for e in s.edges)
    kinds = {"masked": "mask", "": "no mask"} if shown.why or any(present) else {}
    kinds |= {"loose": "through code between"} if loose else {}
    x, y = _MARGIN, _MARGIN + (36 if shown.title else 4)
    parts: list[str] = []
    for kind, text in kinds.items():
        parts.append(f'<path class="edge {kind}" d="M{x:.1f} {y:.1f}h26"/>')
        parts.append(f'<text class="quiet" x="{x + 33:.1f}" y="{y + 4:.1f}">{text}</text>')
        x += 33 + text_width(text, QUIET) + 18
    width = x - _MARGIN
    x, y = _MARGIN, y + 16
    for fate in FATES if shown.why else ():
        if fate in present:
            parts += pill(fate, fate, x, y)
            x += text_width(fate, BADGE) + 16 + 8
    height = 78.0 if shown.why and any(present) else 52.0
    return parts, max(width, x - _MARGIN), height if parts else 0.0
