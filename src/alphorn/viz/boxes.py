"""What stands in the box of a layer, and how much room it takes."""

import html
from dataclasses import dataclass, field
from typing import Any

from alphorn.core.layer import Layer
from alphorn.flow import Stop

PAD = 14.0
TITLE, NAME, BADGE, QUIET, SHAPE = 18, 14, 11.5, 12, 12
_LEAST, _MOST = 84.0, 440.0
_LINE, _TOP, _BOTTOM = 19.0, 24.0, 13.0
_WHY_LINES = 6
# Widths of characters by the size of the font: a little more than common fonts need.
_NARROW, _WIDE, _BOLD, _MONO = "fijlrtI.,:;'|!()[] ", "mwMW@%", 1.13, 0.617


@dataclass(frozen=True)
class Shown:
    """What a picture shows.

    Args:
        title: Above it, or nothing.
        names: Names of layers, beside their classes.
        takes, gives: Shapes of inputs and of outputs.
        dtypes, activations, trainable: The same of each layer, on a line.
        masks: What becomes of masks, on boxes and edges.
        why: Why, in each box.
        inner: The layers of inner models, inside them.
        rankdir: Where edges lead: TB, BT, LR or RL.
        splines: How they are drawn: curved, ortho or line.
    """

    title: str = ""
    names: bool = True
    takes: bool = False
    gives: bool = True
    dtypes: bool = False
    activations: bool = False
    trainable: bool = False
    masks: bool = True
    why: bool = False
    inner: bool = False
    rankdir: str = "TB"
    splines: str = "curved"


@dataclass
class Box:
    """A stop with its lines of text and its size.

    Args:
        stop: What it is of.
        shown: What is shown of it.
        calls: How often the layer is called in the picture.
    """

    stop: Stop
    shown: Shown
    calls: int = 1
    kind: str = ""
    lines: list[tuple[str, str]] = field(default_factory=list)  # class in the style, text
    why: list[str] = field(default_factory=list)
    width: float = 0.0
    head: float = 0.0
    height: float = 0.0
    inside: Any = None

    def __post_init__(self) -> None:
        stop, shown = self.stop, self.shown
        self.kind = stop.kind + (", shared" if self.calls > 1 else "")
        self.lines = [("shape", line) for line in _shape_lines(stop, shown)]
        details = _details(stop, shown)
        self.lines += [("quiet", details)] if details else []
        masked = shown.masks and stop.fate
        wide = [
            text_width(stop.name, NAME) + 10 + text_width(self.kind, QUIET)
            if shown.names
            else text_width(self.kind, NAME),
            *(width_of(kind, text) for kind, text in self.lines),
            text_width(badge(stop), BADGE) + 18 if masked else 0.0,
            min(text_width(stop.why, QUIET), 300.0) if masked and shown.why else 0.0,
        ]
        self.width = min(max(max(wide) + 2 * PAD + 4, _LEAST), _MOST)
        self.head = _TOP + _LINE * len(self.lines) + _BOTTOM
        if masked:
            self.why = _wrapped(stop.why, self.inner) if shown.why else []
            self.head += 30 + 16 * len(self.why)
        self.height = self.head

    @property
    def inner(self) -> float:
        """The room for text."""
        return self.width - 2 * PAD - 4

    def drawn(self, x: float, y: float) -> list[str]:
        """Returns the parts of the box, whose upper left corner is at `x, y`."""
        stop, left = self.stop, x + PAD + 4
        masked = self.shown.masks and stop.fate
        size = f'width="{self.width:.1f}" height="{self.height:.1f}"'
        full = f"{stop.name} ({stop.kind}) {shapes_of(stop)}"
        full += f"\n{stop.why}" if masked and stop.why else ""
        parts = [
            f"<title>{safe(full)}</title>",
            f'<rect class="{"group" if self.inside else "box"}" x="{x:.1f}" y="{y:.1f}" {size} rx="9"/>',
        ]
        if masked:
            parts.append(
                f'<path class="{stop.fate}" d="M{x + 5:.1f} {y:.1f}h-.5a4.5 9 0 0 0-4.5 9'
                f'v{self.height - 18:.1f}a4.5 9 0 0 0 4.5 9h.5z"/>'
            )
        parts.append(f'<text x="{left:.1f}" y="{y + _TOP:.1f}">{self._heading()}</text>')
        at = y + _TOP
        for kind, text in self.lines:
            at += _LINE
            line = cut(text, self.inner, kind)
            parts.append(f'<text class="{kind}" x="{left:.1f}" y="{at:.1f}">{safe(line)}</text>')
        if masked:
            parts += pill(stop.fate, badge(stop), left, at + 11)
        for i, line in enumerate(self.why):
            down = at + 47 + 16 * i
            parts.append(f'<text class="quiet" x="{left:.1f}" y="{down:.1f}">{safe(line)}</text>')
        return parts

    def _heading(self) -> str:
        if not self.shown.names:
            return f'<tspan class="name">{safe(cut(self.kind, self.inner, "name"))}</tspan>'
        room = self.inner - text_width(self.kind, QUIET) - 10
        name = cut(self.stop.name, max(room, self.inner * 0.5), "name")
        kind = cut(self.kind, self.inner - text_width(name, NAME) - 10, "quiet")
        return (
            f'<tspan class="name">{safe(name)}</tspan>'
            f'<tspan class="quiet" dx="8">{safe(kind)}</tspan>'
        )


def shapes_of(stop: Stop) -> str:
    """Returns the shapes of the outputs as text."""
    return _listed(stop.shapes) or "no output"


def _listed(shapes: tuple) -> str:
    return ", ".join(map(str, shapes))


def _shape_lines(stop: Stop, shown: Shown) -> list[str]:
    if not shown.takes or stop.kind == "InputLayer" or not stop.takes:
        return [shapes_of(stop)] if shown.gives else []
    takes = _listed(stop.takes)
    line = f"{takes} → {shapes_of(stop)}"
    if width_of("shape", line) <= _MOST - 2 * PAD - 4:
        return [line]
    return [takes, f"→ {shapes_of(stop)}"]


def _details(stop: Stop, shown: Shown) -> str:
    """Returns what else is known of a layer, as a line."""
    parts = []
    if shown.dtypes and stop.dtypes:
        parts.append(", ".join(dict.fromkeys(stop.dtypes)))
    if shown.activations and (name := activation_of(stop.operation)):
        parts.append(name)
    if shown.trainable and (says := trains(stop.operation)):
        parts.append(says)
    return " · ".join(parts)


def activation_of(operation: Any) -> str:
    """Returns the name of a layer's activation, or nothing."""
    found = getattr(operation, "activation", None)
    return getattr(found, "__name__", type(found).__name__) if found is not None else ""


def trains(operation: Any) -> str:
    """Returns whether training changes the layer, or nothing where it has no weights."""
    if not isinstance(operation, Layer) or not operation.weights:
        return ""
    return "trainable" if operation.trainable else "not trainable"


def badge(stop: Stop) -> str:
    """Returns what becomes of the mask, with its shape."""
    return stop.fate if stop.mask is None else f"{stop.fate} {stop.mask}"


def pill(fate: str, text: str, x: float, y: float) -> list[str]:
    """Returns the parts of a badge."""
    width = text_width(text, BADGE) + 16
    return [
        f'<rect class="{fate}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="19" rx="9.5"/>',
        f'<text class="badge on-{fate}" x="{x + width / 2:.1f}" y="{y + 13.5:.1f}"'
        f' text-anchor="middle">{safe(text)}</text>',
    ]


# --- text


def text_width(text: str, size: float) -> float:
    """Returns about how wide a text is in a size of letters."""
    units = sum(_units(c) for c in text)
    return units * size * (_BOLD if size in (NAME, BADGE, TITLE) else 1)


def width_of(kind: str, text: str) -> float:
    """Returns the same in a class of the style."""
    if kind == "shape":
        return len(text) * SHAPE * _MONO
    return text_width(text, NAME if kind == "name" else QUIET)


def _units(c: str) -> float:
    if c in _NARROW:
        return 0.38
    return 0.95 if c in _WIDE or ord(c) > 0x2E7F else 0.74 if c.isupper() else 0.62


def cut(text: str, width: float, kind: str) -> str:
    """Returns as much of a text as there is room for."""
    if width_of(kind, text) <= width + 0.5:
        return text
    while text and width_of(kind, text + "…") > width:
        text = text[:-1]
    return text + "…"


def _wrapped(text: str, width: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width(longer, QUIET) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    if len(lines) > _WHY_LINES:
        lines = [*lines[: _WHY_LINES - 1], " ".join(lines[_WHY_LINES - 1 :])]
    return [cut(line, width, "quiet") for line in lines if line]


def safe(text: str) -> str:
    """Returns text as XML may hold it."""
    return html.escape("".join(c if c.isprintable() or c in "\n" else "\ufffd" for c in text))
