"""Pictures: of models and their masks, of runs, of what a model attends to and what it knows."""

from alphorn.charts import curves
from alphorn.viz.attention import attention
from alphorn.viz.models import mask_flow
from alphorn.viz.picture import Picture
from alphorn.viz.projection import embedding_projection

__all__ = ["Picture", "attention", "curves", "embedding_projection", "mask_flow"]
