"""Models as estimators of scikit-learn, in the way of Keras 2: `KerasClassifier(build_fn)`."""

import copy
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from alphorn.errors import ArgumentError, StateError
from alphorn.losses import get as get_loss
from alphorn.models import Model
from alphorn.utils import to_categorical

__all__ = ["KerasClassifier", "KerasRegressor"]

_FIT = frozenset(inspect.signature(Model.fit).parameters) - {"self", "x", "y"} | {"nb_epoch"}
_PREDICT = frozenset({"batch_size", "verbose", "steps"})


class _Wrapper:
    """What both kinds share.

    Args:
        build_fn: Returns a compiled model; in a subclass `__call__` may do so.
        **sk_params: Arguments of `build_fn`, and of `fit` and `predict`.
    """

    def __init__(self, build_fn: Callable[..., Model] | None = None, **sk_params: Any):
        self.build_fn = build_fn
        self.sk_params = sk_params
        self._check(sk_params)

    def _builder(self) -> Callable[..., Model]:
        if self.build_fn is not None:
            return self.build_fn
        if "__call__" not in vars(type(self)):
            raise ArgumentError(
                type(self).__name__, received="no build_fn", expected="a function of a model"
            )
        return self  # pyright: ignore[reportReturnType]

    def _takes(self) -> frozenset[str]:
        builder: Any = self._builder()
        return frozenset(inspect.signature(builder).parameters) - {"self"}

    def _check(self, given: dict[str, Any]) -> None:
        known = self._takes() | _FIT | _PREDICT
        if strange := [n for n in given if n not in known]:
            raise ArgumentError(
                f"{type(self).__name__}: {', '.join(strange)}",
                expected=f"arguments of build_fn ({', '.join(sorted(self._takes()))}), fit or predict",
            )

    def _chosen(self, names: frozenset[str], given: dict[str, Any]) -> dict[str, Any]:
        return {n: v for n, v in self.sk_params.items() if n in names} | given

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Returns the arguments, copied where `deep` says so."""
        params = copy.deepcopy(self.sk_params) if deep else dict(self.sk_params)
        return params | {"build_fn": self.build_fn}

    def set_params(self, **params: Any) -> Any:
        """Sets arguments; returns this."""
        self.build_fn = params.pop("build_fn", self.build_fn)
        self._check(params)
        self.sk_params |= params
        return self

    def fit(self, x: Any, y: Any, **kwargs: Any) -> Any:
        """Makes a new model and trains it; returns its history."""
        self.model = self._builder()(**self._chosen(self._takes(), {}))
        loss = get_loss(self.model.loss)
        name = getattr(loss, "__name__", getattr(loss, "name", ""))
        if name == "categorical_crossentropy" and np.ndim(y) != 2:
            y = to_categorical(y)
        return self.model.fit(x, y, **self._chosen(_FIT, kwargs))

    def _fitted(self) -> Model:
        if "model" not in vars(self):
            raise StateError(f"{type(self).__name__} is not fitted", fix="fit(x, y) first")
        return self.model


class KerasClassifier(_Wrapper):
    """A classifier for scikit-learn around a model whose last layer is softmax or sigmoid."""

    def fit(self, x: Any, y: Any, sample_weight: Any = None, **kwargs: Any) -> Any:
        """Makes a new model and trains it on labels, of any type, or one-hot rows."""
        y = np.asarray(y)
        if y.ndim == 2 and y.shape[1] > 1:
            self.classes_ = np.arange(y.shape[1])
        else:
            self.classes_, numbers = np.unique(y, return_inverse=True)
            y = numbers.reshape(y.shape)
        return super().fit(x, y, sample_weight=sample_weight, **kwargs)

    def predict(self, x: Any, **kwargs: Any) -> np.ndarray:
        """Returns the likeliest label of each row."""
        model = self._fitted()
        numbers = model.predict_classes(x, **self._chosen(_PREDICT - {"steps"}, kwargs))
        return self.classes_[numbers]

    def predict_proba(self, x: Any, **kwargs: Any) -> np.ndarray:
        """Returns probabilities `(rows, classes)`, of two classes from one output as well."""
        found = self._fitted().predict(x, **self._chosen(_PREDICT, kwargs))
        return np.hstack([1 - found, found]) if found.shape[1] == 1 else found

    def score(self, x: Any, y: Any, sample_weight: Any = None, **kwargs: Any) -> float:
        """Returns the share of rows whose label is right."""
        y = np.asarray(y)
        y = self.classes_[y.argmax(-1)] if y.ndim == 2 and y.shape[1] > 1 else y.reshape(-1)
        right = self.predict(x, **kwargs).reshape(-1) == y
        return float(np.average(right, weights=sample_weight))


class KerasRegressor(_Wrapper):
    """A regressor for scikit-learn around a model."""

    def predict(self, x: Any, **kwargs: Any) -> np.ndarray:
        """Returns a number for each row."""
        return np.squeeze(self._fitted().predict(x, **self._chosen(_PREDICT, kwargs)), axis=-1)

    def score(self, x: Any, y: Any, **kwargs: Any) -> float:
        """Returns minus the loss: larger is better."""
        options = self._chosen(frozenset({"batch_size", "sample_weight", "verbose"}), kwargs)
        loss = self._fitted().evaluate(x, y, **options)
        return -float(loss[0] if isinstance(loss, list) else loss)
