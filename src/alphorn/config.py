"""Settings of the whole process: number types, the image layout, seeds, the cache folder."""

import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from alphorn.errors import ArgumentError

__all__ = [
    "cache_folder",
    "compilation_cache",
    "dtype_policy",
    "epsilon",
    "floatx",
    "image_data_format",
    "set_compilation_cache",
    "set_dtype_policy",
    "set_epsilon",
    "set_floatx",
    "set_image_data_format",
    "set_trim_padding",
    "trim_padding",
]

_FLOATS = ("float16", "bfloat16", "float32", "float64")
_LAYOUTS = ("channels_last", "channels_first")
_settings = {"floatx": "float32", "epsilon": 1e-7, "image_data_format": "channels_last"}
_trims_padding = [True]


def floatx() -> str:
    """Returns the default float type.

    >>> floatx()
    'float32'
    """
    return _settings["floatx"]


def set_floatx(value: str) -> None:
    """Sets the default float type: float16, bfloat16, float32 or float64."""
    _settings["floatx"] = _one_of("floatx", value, _FLOATS)


def epsilon() -> float:
    """Returns the small number that keeps divisions and logarithms finite.

    >>> epsilon()
    1e-07
    """
    return _settings["epsilon"]


def set_epsilon(value: float) -> None:
    """Sets the small number that keeps divisions and logarithms finite."""
    _settings["epsilon"] = float(value)


def image_data_format() -> str:
    """Returns the default layout of images.

    >>> image_data_format()
    'channels_last'
    """
    return _settings["image_data_format"]


def set_image_data_format(data_format: str) -> None:
    """Sets the default layout of images: channels_last or channels_first."""
    _settings["image_data_format"] = _one_of("data_format", data_format, _LAYOUTS)


def trim_padding() -> bool:
    """Returns whether `fit`, `evaluate` and `predict` leave padding out where that is exact.

    >>> trim_padding()
    True
    """
    return _trims_padding[0]


def set_trim_padding(enabled: bool) -> None:
    """Sets whether padding is left out: batches cut to their longest row, rows of like lengths
    together in `evaluate` and `predict`. Only where the result is the same; `summary()` says where.
    """
    _trims_padding[0] = bool(enabled)


def standardize_data_format(data_format: str | None) -> str:
    """Returns `data_format`, or the default where it is None."""
    if data_format is None:
        return image_data_format()
    return _one_of("data_format", str(data_format).lower(), _LAYOUTS)


def cache_folder() -> Path:
    """Returns the folder for downloads and compiled programs: ALPHORN_HOME or ~/.cache/alphorn."""
    return Path(os.environ.get("ALPHORN_HOME") or Path.home() / ".cache" / "alphorn")


_compilation_cache: list[Path | bool] = [True]


def compilation_cache() -> Path | None:
    """Returns the folder in which compiled programs are kept, None where they are not.

    By default that is `cache_folder()`. The environment variable ALPHORN_COMPILATION_CACHE names
    another folder, or is "0" for none. JAX's own settings win over both.
    """
    given = os.environ.get("ALPHORN_COMPILATION_CACHE")
    if _compilation_cache[0] is not True:
        return _compilation_cache[0] or None
    if given in ("0", "off", "false"):
        return None
    return Path(given) if given else cache_folder()


def set_compilation_cache(folder: str | Path | bool) -> None:
    """Sets where compiled programs are kept; call it before anything is compiled.

    Args:
        folder: A folder that nobody else may write to; False for none, True for the default.
    """
    _compilation_cache[0] = folder if isinstance(folder, bool) else Path(folder)


def _one_of(argument: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ArgumentError(argument, received=repr(value), expected=f"one of {', '.join(known)}")
    return value


class DTypePolicy:
    """The number types of a layer: what it computes in, and what its weights are kept in.

    Args:
        name: A type (`"float32"`), or `"mixed_bfloat16"` / `"mixed_float16"`: computes in 16 bits
            on weights kept in float32. None for `floatx()`.

    >>> policy = DTypePolicy("mixed_bfloat16")
    >>> policy.compute_dtype, policy.variable_dtype
    ('bfloat16', 'float32')
    """

    def __init__(self, name: str | None = None):
        self.name = name or floatx()
        if self.name.startswith("mixed_"):
            self.compute_dtype = _one_of("dtype policy", self.name[6:], ("float16", "bfloat16"))
            self.variable_dtype = "float32"
            return
        try:
            self.compute_dtype = self.variable_dtype = jnp.dtype(self.name).name
        except TypeError:
            raise ArgumentError(
                "dtype policy",
                received=repr(name),
                expected="a number type such as 'float32', or 'mixed_bfloat16', 'mixed_float16'",
            ) from None

    @property
    def quantization_mode(self) -> None:
        """None: weights are not quantized."""

    def get_config(self) -> dict:
        """Returns the arguments that make this policy again."""
        return {"name": self.name}

    @classmethod
    def from_config(cls, config: dict) -> "DTypePolicy":
        """Makes a policy from `get_config()`."""
        return cls(**config)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DTypePolicy) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"<DTypePolicy {self.name!r}>"


_global_policy: list[DTypePolicy | None] = [None]


def dtype_policy() -> DTypePolicy:
    """Returns the policy of layers that name none.

    >>> dtype_policy()
    <DTypePolicy 'float32'>
    """
    return _global_policy[0] or DTypePolicy(floatx())


def set_dtype_policy(policy: str | DTypePolicy | None) -> None:
    """Sets the policy of layers that name none."""
    _global_policy[0] = None if policy is None else as_policy(policy)


def as_policy(value: Any) -> DTypePolicy:
    """Returns `value` (a policy, a type, a name, a config or None) as a policy.

    >>> as_policy("mixed_float16").compute_dtype
    'float16'
    """
    if value is None:
        return dtype_policy()
    if isinstance(value, DTypePolicy):
        return value
    if isinstance(value, dict):
        return DTypePolicy(**value.get("config", value))
    return DTypePolicy(value if isinstance(value, str) else jnp.dtype(value).name)


_seed_lock = threading.Lock()
_seeds: list[random.Random] = [random.Random()]
_at_reseed: list[Callable[[], None]] = []


def set_random_seed(seed: int) -> None:
    """Seeds Python, NumPy and every generator of Alphorn that is made without a seed.

    >>> set_random_seed(7); first = draw_seed(); set_random_seed(7); first == draw_seed()
    True
    """
    if not isinstance(seed, int | np.integer):
        raise ArgumentError("set_random_seed", received=repr(seed), expected="an integer")
    random.seed(int(seed))
    np.random.seed(int(seed) % 2**32)
    with _seed_lock:
        _seeds[0] = random.Random(int(seed))
    for refresh in _at_reseed:
        refresh()


def generator_states() -> dict[str, Any]:
    """Returns the states of the generators that `set_random_seed` seeds, as plain values.

    >>> states = generator_states(); first = draw_seed()
    >>> set_generator_states(states); draw_seed() == first
    True
    """
    numpy: Any = np.random.get_state(legacy=False)
    inner = {name: np.asarray(value).tolist() for name, value in numpy["state"].items()}
    with _seed_lock:
        own = _seeds[0].getstate()
    return {"numpy": {**numpy, "state": inner}, "python": random.getstate(), "own": own}


def set_generator_states(states: dict[str, Any]) -> None:
    """Sets what `generator_states` returned; it may have been through JSON."""
    numpy = states["numpy"]
    inner = {k: np.asarray(v, np.uint64) if k == "key" else v for k, v in numpy["state"].items()}
    np.random.set_state({**numpy, "state": inner})
    random.setstate(_as_tuples(states["python"]))
    with _seed_lock:
        _seeds[0].setstate(_as_tuples(states["own"]))


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list | tuple) else value


def at_reseed(refresh: Callable[[], None]) -> None:
    """Has `refresh` called whenever `set_random_seed` is."""
    _at_reseed.append(refresh)


def draw_seed() -> int:
    """Returns a seed from the process's own stream, in [0, 2**31)."""
    with _seed_lock:
        return _seeds[0].randrange(2**31)
