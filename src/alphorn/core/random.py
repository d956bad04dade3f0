"""Random numbers as state: a generator is a Variable, and every draw takes one key from it."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from alphorn.config import draw_seed
from alphorn.core.context import running_layer
from alphorn.core.variable import Variable
from alphorn.errors import ArgumentError
from alphorn.fields import Configurable
from alphorn.naming import auto_name, register


class SeedGenerator(Configurable):
    """Gives a new key a call; its state is a Variable, so it works under jit and is saved.

    Args:
        seed: An integer; None draws one from the process's stream (`set_random_seed`).
        name: By default `seed_generator`, ...

    >>> generator = SeedGenerator(3)
    >>> bool((generator.next() == generator.next()).all())
    False
    """

    def __init__(self, seed: int | None = None, name: str | None = None):
        if seed is not None and (not isinstance(seed, int | np.integer) or seed < 0):
            raise ArgumentError(
                "SeedGenerator: seed", received=repr(seed), expected="an integer >= 0, or None"
            )
        self.name = name or auto_name("seed_generator")
        self.seed = draw_seed() if seed is None else int(seed)
        start = np.array([self.seed % 2**32, 0], np.uint32)
        self.state = Variable(start, trainable=False, autocast=False, name="seed_generator_state")
        self.state.path = f"{self.name}/seed_generator_state"

    @property
    def variables(self) -> list[Variable]:
        """The state."""
        return [self.state]

    def next(self, ordered: bool = True) -> Array:
        """Returns a key `(2,)` and moves on."""
        state = self.state.value
        self.state.assign(state + np.array([0, 1], np.uint32))
        return jax.random.fold_in(jax.random.PRNGKey(state[0]), state[1])

    def get_config(self) -> dict[str, Any]:
        """Returns the seed."""
        return {"seed": self.seed}


register("random", SeedGenerator)


def generator_here() -> SeedGenerator | None:
    """Returns the generator of the layer whose call is running, made at its first draw, or None."""
    layer = running_layer.get()
    if layer is None:
        return None
    if "draws" not in vars(layer):
        layer.draws = SeedGenerator(name=f"{layer.name}_draws")
    return layer.draws


def as_key(seed: Any) -> Array:
    """Returns a key from a generator, an integer, a key or None (a new seed of the process).

    >>> as_key(1).shape
    (2,)
    """
    if isinstance(seed, SeedGenerator):
        return seed.next()
    if seed is None:
        return jax.random.PRNGKey(draw_seed())
    if isinstance(seed, int | np.integer):
        return jax.random.PRNGKey(int(seed))
    return jnp.asarray(seed)


def draw_pairs(key: Array, draw: Callable[..., Array], shape: Sequence[int]) -> Array:
    """Draws `(..., T, S)` so that neither `T` nor `S` changes what a pair of steps gets.

    Args:
        key: Of the draw.
        draw: `(key, shape) -> array`.
        shape: The shape wanted.
    """
    *rows, steps, others = shape
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(others))
    return jnp.moveaxis(jax.vmap(lambda k: draw(k, (steps, *rows)))(keys), (0, 1), (-1, -2))


def draw_steps(draw: Callable[[Sequence[int]], Array], shape: Sequence[int]) -> Array:
    """Draws `(B, T, ...)` time first, so that a row's first steps do not depend on T.

    Args:
        draw: `shape -> array`, e.g. `partial(jax.random.normal, key)`.
        shape: The shape wanted; with fewer than three axes it is drawn as it is.
    """
    if len(shape) < 3:
        return draw(tuple(shape))
    return jnp.swapaxes(draw((shape[1], shape[0], *shape[2:])), 0, 1)
