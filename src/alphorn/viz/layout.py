"""Where the boxes of a graph stand: layers from top to bottom, neighbours close to each other.

Layers by the longest path, order by barycentres, places by least squares that keep the order.
"""

from bisect import bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

# Between boxes of a layer, between layers, and on either side of a line that passes through a layer.
BESIDE, BELOW, LANE = 28.0, 40.0, 9.0
_SWEEPS = 8
_PASSES = 60
# How strongly two boxes, a box and a line, and two pieces of a line pull at each other: long lines
# come out straight.
_STIFFNESS = (1.0, 2.0, 8.0)
# Lines that pass more layers than this in all are drawn straight through.
_MOST_LANES = 20_000


@dataclass(frozen=True)
class Placed:
    """A layout.

    Args:
        width, height: Of all.
        corners: The upper left corner of each box.
        routes: The points of each edge, from the bottom of a box to the top of another.
    """

    width: float
    height: float
    corners: list[tuple[float, float]]
    routes: list[list[tuple[float, float]]]


def place(sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]]) -> Placed:
    """Places boxes so that edges go down.

    Args:
        sizes: Width and height of each box.
        edges: `(source, target)`, each source before its target.

    >>> placed = place([(80, 40), (80, 40), (80, 40)], [(0, 1), (0, 2)])
    >>> placed.width, placed.corners
    (188.0, [(54.0, 0.0), (0.0, 80.0), (108.0, 80.0)])
    """
    layer = _layers(len(sizes), edges)
    count = max(layer, default=-1) + 1
    rows: list[list[int]] = [[] for _ in range(count)]
    for node, at in enumerate(layer):
        rows[at].append(node)
    widths = [width for width, _ in sizes]
    chains = _lanes(edges, layer, rows, widths)
    near = [c for c in chains if len(c) == layer[c[-1]] - layer[c[0]] + 1]
    above, below = _neighbours(len(widths), near)
    _order(rows, above, below)
    middle = _middles(rows, widths, len(sizes), above, below)
    tops, heights = _heights(rows, sizes)
    left = min((middle[n] - widths[n] / 2 for n in range(len(widths))), default=0.0)
    right = max((middle[n] + widths[n] / 2 for n in range(len(widths))), default=0.0)
    corners = [(middle[n] - widths[n] / 2 - left, tops[layer[n]]) for n in range(len(sizes))]
    ends = _ends(edges, chains, middle, widths)
    routes = []
    for (source, target), chain, end in zip(edges, chains, ends, strict=True):
        points = [(middle[source] - left, tops[layer[source]] + sizes[source][1])]
        for step, lane in enumerate(chain[1:-1], layer[source] + 1):
            top = tops[step]
            points += [(middle[lane] - left, top), (middle[lane] - left, top + heights[step])]
        routes.append([*points, (end - left, tops[layer[target]])])
    height = tops[-1] + heights[-1] if count else 0.0
    return Placed(right - left, height, corners, routes)


def _layers(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """Returns each box's layer; what nothing leads to stands just above what it leads to."""
    layer = [0] * count
    for source, target in sorted(edges, key=lambda e: e[1]):
        layer[target] = max(layer[target], layer[source] + 1)
    nearest: dict[int, int] = {}
    for source, target in edges:
        nearest[source] = min(nearest.get(source, count), layer[target])
    led_to = {target for _, target in edges}
    for node, at in nearest.items():
        if node not in led_to:
            layer[node] = at - 1
    return layer


def _lanes(
    edges: Sequence[tuple[int, int]], layer: list[int], rows: list[list[int]], widths: list[float]
) -> list[list[int]]:
    """Returns each edge as a chain of nodes, with a new one in each layer that it passes."""
    chains = []
    lanes = sum(layer[t] - layer[s] - 1 for s, t in edges)
    for source, target in edges:
        chain = [source]
        for at in range(layer[source] + 1, layer[target]) if lanes <= _MOST_LANES else ():
            rows[at].append(len(widths))
            chain.append(len(widths))
            widths.append(2 * LANE)
        chains.append([*chain, target])
    return chains


def _neighbours(count: int, chains: Iterable[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
    above: list[list[int]] = [[] for _ in range(count)]
    below: list[list[int]] = [[] for _ in range(count)]
    for chain in chains:
        for a, b in pairwise(chain):
            below[a].append(b)
            above[b].append(a)
    return above, below


def _order(rows: list[list[int]], above: list[list[int]], below: list[list[int]]) -> None:
    """Sorts each row by the mean place of its neighbours, down and up in turn; the best is kept."""
    best, least = [list(row) for row in rows], _crossings(rows, below)
    for start in ([list(row) for row in rows], [row[::-1] for row in rows]):
        rows[:] = start
        place = {n: i - len(row) / 2 for row in rows for i, n in enumerate(row)}
        for sweep in range(_SWEEPS):
            if not least:
                break
            down = sweep % 2 == 0
            towards = above if down else below
            for row in rows if down else reversed(rows):
                wanted = {n: _mean([place[m] for m in towards[n]], place[n]) for n in row}
                row.sort(key=wanted.__getitem__)
                place.update((n, i - len(row) / 2) for i, n in enumerate(row))
            found = _crossings(rows, below)
            if found < least:
                best, least = [list(row) for row in rows], found
    rows[:] = best


def _crossings(rows: list[list[int]], below: list[list[int]]) -> int:
    """Returns how many edges between neighbouring rows cross."""
    total = 0
    for row, after in pairwise(rows):
        place = {n: i for i, n in enumerate(after)}
        seen: list[int] = []
        for n in row:
            ends = sorted(place[m] for m in below[n])
            total += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return total


def _mean(values: list[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _middles(
    rows: list[list[int]],
    widths: list[float],
    boxes: int,
    above: list[list[int]],
    below: list[list[int]],
) -> list[float]:
    """Returns the middle of each node: near its neighbours', in order, without overlap."""
    middle = [0.0] * len(widths)
    pulls = [
        [(m, _STIFFNESS[(n >= boxes) + (m >= boxes)]) for m in above[n] + below[n]]
        for n in range(len(widths))
    ]
    weights = [max(sum(pull for _, pull in near), 1.0) for near in pulls]
    for step in range(_PASSES):
        for row in rows if step % 2 == 0 else reversed(rows):
            wanted = [
                sum(middle[m] * pull for m, pull in pulls[n]) / weights[n]
                if pulls[n]
                else middle[n]
                for n in row
            ]
            places = _apart(wanted, [widths[n] for n in row], [weights[n] for n in row])
            for n, x in zip(row, places, strict=True):
                middle[n] = x
    return middle


def _apart(wanted: list[float], widths: list[float], weights: list[float]) -> list[float]:
    """Returns the places nearest to those wanted, in order and without overlap.

    >>> _apart([0.0, 0.0], [72.0, 72.0], [1.0, 1.0])
    [-50.0, 50.0]
    """
    offsets = [0.0]
    for a, b in pairwise(widths):
        offsets.append(offsets[-1] + (a + b) / 2 + BESIDE)
    blocks: list[tuple[float, float, int]] = []  # (sum, weight, number): means that must not fall
    for x, offset, weight in zip(wanted, offsets, weights, strict=False):
        total, number = (x - offset) * weight, 1
        while blocks and blocks[-1][0] / blocks[-1][1] >= total / weight:
            before = blocks.pop()
            total, weight, number = total + before[0], weight + before[1], number + before[2]
        blocks.append((total, weight, number))
    starts = [total / weight for total, weight, number in blocks for _ in range(number)]
    return [start + offset for start, offset in zip(starts, offsets, strict=False)]


def _heights(
    rows: list[list[int]], sizes: Sequence[tuple[float, float]]
) -> tuple[list[float], list[float]]:
    heights = [max((sizes[n][1] for n in row if n < len(sizes)), default=0.0) for row in rows]
    tops, at = [], 0.0
    for height in heights:
        tops.append(at)
        at += height + BELOW
    return tops, heights


def _ends(
    edges: Sequence[tuple[int, int]], chains: list[list[int]], middle: list[float], widths: list
) -> list[float]:
    """Returns where each edge meets its target: side by side, in the order in which they come."""
    arriving: dict[int, list[int]] = {}
    for i, (_, target) in enumerate(edges):
        arriving.setdefault(target, []).append(i)
    ends = [0.0] * len(edges)
    for target, group in arriving.items():
        group.sort(key=lambda i: middle[chains[i][-2]])
        gap = min(36.0, widths[target] / (len(group) + 1))
        for k, i in enumerate(group):
            ends[i] = middle[target] + (k - (len(group) - 1) / 2) * gap
    return ends
