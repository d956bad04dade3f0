"""Pictures of models: where masks are born, carried, used and ended."""

from alphorn.viz.models import mask_flow
from alphorn.viz.picture import Picture

__all__ = ["Picture", "mask_flow"]
