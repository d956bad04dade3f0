"""A picture of a model: it shows itself in a notebook, and is written as SVG, HTML or PNG."""

import html
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alphorn.errors import ArgumentError, missing
from alphorn.files import written_beside
from alphorn.viz.style import plain_style, style

# What a PNG may have: four bytes each while it is drawn.
MOST_PIXELS = 100_000_000
_PAGE = (
    "body{margin:0;display:flex;justify-content:center;background:#f8fafc}"
    "@media (prefers-color-scheme:dark){body{background:#0b1220}}"
)


@dataclass(frozen=True)
class Picture:
    """A picture of a model.

    Args:
        title: Of the page.
        svg: The picture, as a file of its own or inside a page.
        dpi: Dots per inch of a PNG; an inch is 96 units of the SVG.
    """

    title: str
    svg: str
    dpi: float = 200

    @property
    def html(self) -> str:
        """A page with the picture; it needs no other file and no network."""
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n'
            f"<title>{html.escape(self.title)}</title>\n<style>{_PAGE}</style>\n"
            f"</head>\n<body>\n{self.svg}\n</body>\n</html>\n"
        )

    @property
    def png(self) -> bytes:
        """The picture on light paper, drawn by resvg with Matplotlib's fonts: the same everywhere.

        Raises:
            ImportError: without the extra `viz`.
        """
        try:
            import resvg_py
            from matplotlib import get_data_path
        except ImportError as error:
            raise missing("a PNG (.svg and .html need nothing)", "resvg", "viz") from error
        zoom = self.dpi / 96
        wide, high = map(float, self.svg.split('viewBox="0 0 ')[1].split('"')[0].split())
        most = (MOST_PIXELS / (wide * high)) ** 0.5
        if zoom > most:
            zoom = most
            warnings.warn(
                f"a PNG of {self.dpi} dots per inch would have over {MOST_PIXELS:,} pixels: it has"
                f" {96 * zoom:.0f} dots per inch; an SVG has no such limit",
                stacklevel=2,
            )
        return resvg_py.svg_to_bytes(
            svg_string=self.svg.replace(style(), plain_style()),
            zoom=zoom,
            font_dirs=[f"{get_data_path()}/fonts/ttf"],
        )

    def _repr_html_(self) -> str:
        return self.svg

    def _repr_svg_(self) -> str:
        return self.svg

    def _repr_png_(self) -> bytes | None:
        try:
            return self.png
        except ImportError:  # the other forms are there
            return None

    def save(self, path: Any) -> None:
        """Writes the picture, beside the file first and then renamed.

        Args:
            path: Ends with `.svg`, `.html` or `.png`.

        Raises:
            ArgumentError: another ending.
        """
        path = Path(path)
        form = path.suffix.lower().removeprefix(".")
        if form not in ("svg", "html", "png"):
            raise ArgumentError(
                "a picture's file", str(path), "a name that ends with .svg, .html or .png"
            )
        found = getattr(self, form)
        with written_beside(path) as beside:
            beside.write_bytes(found if isinstance(found, bytes) else found.encode("utf-8"))
