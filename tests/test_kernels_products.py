"""project: a product over the last axes, of matrices alone."""

from math import prod

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alphorn.kernels.device import any_device
from alphorn.kernels.products import project

CASES = [((5,), (3,), 1), ((4, 5), (3,), 1), ((2, 4, 5), (3, 6), 1), ((2, 3, 5), (4,), 2)]


@pytest.mark.parametrize(("lead", "units", "axes"), CASES, ids=str)
def test_values_and_gradients_are_those_of_tensordot(
    lead: tuple[int, ...], units: tuple[int, ...], axes: int
) -> None:
    shape = (2, *lead)
    summed = shape[len(shape) - axes :]
    x = jnp.arange(prod(shape), dtype=float).reshape(shape) / 7
    kernel = jnp.cos(jnp.arange(float(prod((*summed, *units))))).reshape(*summed, *units)

    def total(product: jax.Array) -> jax.Array:
        return jnp.sum(product**2)

    ours = jax.value_and_grad(lambda *a: total(project(*a, axes)), (0, 1))(x, kernel)
    theirs = jax.value_and_grad(lambda *a: total(jnp.tensordot(*a, axes)), (0, 1))(x, kernel)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), ours, theirs)


def test_the_kernels_gradient_sums_over_one_axis() -> None:
    def summed_axes(x: jax.Array, kernel: jax.Array) -> list[int]:
        traced = jax.make_jaxpr(jax.grad(lambda *a: project(*a).sum(), 1))(x, kernel)
        products = [e for e in traced.eqns if e.primitive.name == "dot_general"]
        return [len(e.params["dimension_numbers"][0][0]) for e in products]

    arguments = jnp.ones((2, 5, 3)), jnp.ones((3, 4))
    assert set(summed_axes(*arguments)) == {1}
    with any_device():
        assert max(summed_axes(*arguments)) == 2


@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 0, 3), (2, 4, 0)], ids=str)
def test_nothing_to_multiply(shape: tuple[int, ...]) -> None:
    product = project(jnp.ones(shape), jnp.ones((shape[-1], 5)))
    assert product.shape == (*shape[:-1], 5)
    assert not product.any()
