"""`layer(x, mask=m)`: the mask of a call is put onto its inputs."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from alphorn.core.masked import Masked, check_mask, unmask
from alphorn.core.symbol import Symbol
from alphorn.errors import MaskError


def attach_mask(where: str, inputs: Any, mask: Any) -> Any:
    """Returns inputs as Masked, by a mask for each in their structure.

    Args:
        where: The layer, for errors.
        inputs: Arrays, Masked or Symbols; lists and dicts of them.
        mask: A mask for one input; a list or dict of masks for several, None for those without.
    """
    if isinstance(inputs, list | tuple) and isinstance(mask, list | tuple):
        parts = zip(inputs, mask, strict=True)
        return type(inputs)(attach_mask(where, x, m) for x, m in parts)
    if isinstance(inputs, dict) and isinstance(mask, dict):
        return {k: attach_mask(where, x, mask.get(k)) for k, x in inputs.items()}
    if mask is not None and _holds_several(inputs):
        raise MaskError(
            f"{where}: mask= for several inputs",
            received="one mask",
            expected="a mask for each input, or None, in the structure of the inputs",
            fix="layer(inputs, mask=[mask, None])",
        )
    if mask is None or isinstance(mask, Symbol):
        return inputs  # a Symbol's mask is there when the layer is entered
    if isinstance(inputs, Symbol):
        shape = tuple(np.shape(unmask(mask)))
        if None in inputs.shape[: len(shape)]:
            raise MaskError(
                f"{where}: mask= for a symbolic input",
                received=f"an array of shape {shape} for an input of shape {inputs.shape}",
                expected="a symbolic mask, since the sizes of the input are not known",
                fix="mask = Input((None,), dtype='bool'), and Model([x, mask], ...)",
            )
        return inputs
    mask = jnp.asarray(unmask(mask))
    if mask.dtype != jnp.bool_:
        mask = mask.astype(bool)
    check_mask(where, tuple(jnp.shape(unmask(inputs))), mask)
    return Masked(inputs, mask)


def _holds_several(value: Any) -> bool:
    parts = value.values() if isinstance(value, dict) else value
    return isinstance(value, list | tuple | dict) and any(hasattr(x, "shape") for x in parts)
