"""Pictures of models: where masks are born, carried, used and ended."""

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alphorn.core.door import symbols_of
from alphorn.core.symbol import symbols_like
from alphorn.errors import ArgumentError
from alphorn.files import written_beside
from alphorn.flow import first_argument, flow_of
from alphorn.models.model import Model
from alphorn.training.data import Table
from alphorn.viz.drawing import draw

__all__ = ["MaskFlow", "mask_flow"]

# Rows of which the shapes are looked at.
_ROWS = 32


@dataclass(frozen=True)
class MaskFlow:
    """A picture of a model: it shows itself in a notebook.

    Args:
        name: The model's.
        svg: The picture, as a file of its own or inside a page.
    """

    name: str
    svg: str

    @property
    def html(self) -> str:
        """A page with the picture; it needs no other file and no network."""
        page = (
            "body{margin:0;display:flex;justify-content:center;background:#f8fafc}"
            "@media (prefers-color-scheme:dark){body{background:#0b1220}}"
        )
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n'
            f"<title>Masks in {html.escape(self.name)}</title>\n<style>{page}</style>\n"
            f"</head>\n<body>\n{self.svg}\n</body>\n</html>\n"
        )

    def _repr_html_(self) -> str:
        return self.svg

    def save(self, path: Any) -> None:
        """Writes the picture, beside the file first and then renamed.

        Args:
            path: Ends with `.html` or `.svg`.

        Raises:
            ArgumentError: another ending.
        """
        path = Path(path)
        texts = {".html": self.html, ".svg": self.svg}
        if path.suffix not in texts:
            raise ArgumentError("MaskFlow: save", str(path), "a name that ends with .html or .svg")
        with written_beside(path) as beside:
            beside.write_text(texts[path.suffix], encoding="utf-8")


def mask_flow(
    model: Model,
    to_file: Any = None,
    input_shape: Any = None,
    x: Any = None,
    expand_nested: bool = False,
) -> MaskFlow:
    """Draws what becomes of masks on their way through a model. Nothing is computed.

    Each box is a layer, or an op on a mask: its output's shape, and whether a mask is born,
    carried, resampled, joined, used, ended or refused there, with the mask's shape and the reason.

    Args:
        model: Functional, Sequential, or of your own; what is not built is built.
        to_file: Where to write it: `.html` or `.svg`.
        input_shape: With the batch axis; or a structure of shapes. By default that of the model's
            inputs, or of the data on which it was called.
        x: Data instead: lists of unequal rows bring a mask.
        expand_nested: Whether the layers of inner models are drawn.

    Returns:
        The picture; the last line of a notebook's cell shows it.

    Raises:
        StateError: a model of your own that was never called, without `x` and `input_shape`.

    >>> from alphorn import layers
    >>> from alphorn.models import Sequential
    >>> model = Sequential([layers.Embedding(9, 4, mask_zero=True), layers.GRU(3)])
    >>> picture = mask_flow(model, input_shape=(None, None))
    >>> "born (None, None)" in picture.svg
    True
    """
    if not isinstance(model, Model):
        raise ArgumentError(
            "mask_flow: model",
            received=type(model).__name__,
            expected="a model",
            fix="alphorn.Sequential([layer]) makes one of a layer",
        )
    if x is not None and input_shape is not None:
        raise ArgumentError("mask_flow", received="x and input_shape", expected="one of them")
    arguments = None
    if x is not None:
        table = Table(x, batch_size=_ROWS, inputs=model._inputs_count())
        batch = table.batch(slice(0, min(table.rows, _ROWS)))
        arguments = first_argument(model, symbols_like(batch.x))
    elif input_shape is not None:
        first = model.layers[0] if model.graph is None and model.layers else model
        arguments = first_argument(model, symbols_of(first, input_shape))
    picture = MaskFlow(model.name, draw(flow_of(model, arguments), expand_nested))
    if to_file is not None:
        picture.save(to_file)
    return picture
