"""Models as estimators of scikit-learn, in the way of Keras 3: `SKLearnClassifier(model)`."""

from collections.abc import Callable
from typing import Any

import numpy as np

from alphorn.errors import ArgumentError, StateError, not_installed
from alphorn.models import Model, clone_model

__all__ = ["SKLearnClassifier", "SKLearnRegressor", "SKLearnTransformer"]


def _sklearn() -> Any:
    try:
        import sklearn.metrics
        import sklearn.utils.multiclass
        import sklearn.utils.validation
    except ImportError:
        what = "models as estimators of scikit-learn"
        raise not_installed(what, "scikit-learn", "sklearn") from None
    return sklearn


class _Estimator:
    """What all kinds share.

    Args:
        model: A compiled model, of which each `fit` trains a copy; or a function that returns one,
            `model(X=X, y=y, **model_kwargs)`, `y` as the model will see it.
        warm_start: Whether `fit` goes on with the model of the last one, or with `model` itself.
        model_kwargs: For the function.
        fit_kwargs: For `model.fit`, as well as what `fit` is given.
    """

    # Whether a row may have several targets.
    _several = True

    def __init__(
        self,
        model: Model | Callable[..., Model],
        warm_start: bool = False,
        model_kwargs: dict[str, Any] | None = None,
        fit_kwargs: dict[str, Any] | None = None,
    ):
        _sklearn()
        self.model, self.warm_start = model, warm_start
        self.model_kwargs, self.fit_kwargs = model_kwargs, fit_kwargs

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model={self.model!r})"

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Returns the arguments."""
        names = ("model", "warm_start", "model_kwargs", "fit_kwargs")
        return {name: getattr(self, name) for name in names}

    def set_params(self, **params: Any) -> Any:
        """Sets arguments; returns this."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ArgumentError(f"{type(self).__name__}: {name}", expected=", ".join(known))
            setattr(self, name, value)
        return self

    def __sklearn_clone__(self) -> Any:
        return type(self)(**self.get_params())

    def __sklearn_tags__(self) -> Any:
        utils = _sklearn().utils
        return utils.Tags(
            estimator_type=None,
            target_tags=utils.TargetTags(required=True),
            transformer_tags=None,
            classifier_tags=None,
            regressor_tags=None,
            non_deterministic=True,
        )

    @property
    def epoch_(self) -> int:
        """How many epochs the last `fit` took."""
        return len(self.history_.epoch) if "history_" in vars(self) else 0

    def fit(self, X: Any, y: Any, **kwargs: Any) -> Any:
        """Trains; returns this.

        Args:
            X: Rows of numbers, or what the model takes: lists of unequal sequences, and arrays of
                more than two axes.
            y: A number, a label, or several, for each row.
            **kwargs: For `model.fit`.
        """
        X, y = self._checked(X, y)
        y = self._learned(y)
        model = self._new(X, y)
        if not model.compiled or not model.loss or not model.optimizer:
            raise StateError(f"{type(self).__name__}: '{model.name}' is not compiled")
        self.history_ = model.fit(X, y, **{**(self.fit_kwargs or {}), **kwargs})
        self.model_ = model
        return self

    def _new(self, X: Any, y: Any) -> Model:
        if self.warm_start and "model_" in vars(self):
            return self.model_
        if not isinstance(self.model, Model):
            return self.model(X=X, y=y, **(self.model_kwargs or {}))
        if self.warm_start:
            return self.model
        made = clone_model(self.model)
        if self.model.compiled:
            made.compile_from_config(self.model.get_compile_config())
        return made

    def _checked(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Returns what was given as arrays, if it is rows of numbers; sequences as they are."""
        validation = _sklearn().utils.validation
        targets: Any = y
        if not _are_sequences(X) or y is None:  # of which it says that there must be some
            several = self._several and np.ndim(targets) == 2 and np.shape(targets)[1] > 1
            return validation.validate_data(self, X, y, multi_output=several)
        validation.check_consistent_length(X, y)
        return X, np.asarray(y)

    def _learned(self, y: np.ndarray) -> np.ndarray:
        """Returns targets as the model learns them."""
        if _sklearn().utils.multiclass.type_of_target(y) == "unknown":
            raise ArgumentError(f"{type(self).__name__}: y", f"{y!r:.60}", "numbers or labels")
        self._target_rank = y.ndim
        return y.reshape(-1, 1) if y.ndim == 1 else y

    def _predicted(self, X: Any) -> np.ndarray:
        validation = _sklearn().utils.validation
        validation.check_is_fitted(self)
        if not _are_sequences(X):
            X = validation.validate_data(self, X, reset=False)
        return self.model_.predict(X)

    def predict(self, X: Any) -> np.ndarray:
        """Returns what the model says of each row."""
        found = self._predicted(X)
        return found[:, 0] if self._target_rank == 1 and found.shape[1:] == (1,) else found


def _are_sequences(X: Any) -> bool:
    """Returns whether rows are more than rows of numbers, which scikit-learn checks itself."""
    if not isinstance(X, list | tuple):
        return getattr(X, "ndim", 0) > 2
    rows = [row for row in X if hasattr(row, "__len__") and not isinstance(row, str)]
    nested = any(len(row) and np.ndim(row[0]) for row in rows)
    return nested or len({len(row) for row in rows}) > 1


class SKLearnClassifier(_Estimator):
    """A classifier for scikit-learn around a model with an output for each class.

    Args:
        model, warm_start, model_kwargs, fit_kwargs: As in `SKLearnRegressor`. The model learns
            rows with 1 at the place of the class.

    Attributes:
        classes_: The labels, sorted.
        model_, history_: After `fit`.

    >>> from alphorn.layers import Dense, Input
    >>> from alphorn.models import Sequential
    >>> def model(X, y):
    ...     made = Sequential([Input((X.shape[1],)), Dense(y.shape[1], activation="softmax")])
    ...     made.compile("adam", "categorical_crossentropy")
    ...     return made
    >>> x, y = np.eye(4), np.array(["a", "b", "a", "b"])
    >>> SKLearnClassifier(model).fit(x, y, verbose=0).classes_
    array(['a', 'b'], dtype='<U1')
    """

    _several = False

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.estimator_type = "classifier"
        tags.classifier_tags = _sklearn().utils.ClassifierTags(poor_score=True)
        return tags

    def _learned(self, y: np.ndarray) -> np.ndarray:
        kind = _sklearn().utils.multiclass.type_of_target(y, raise_unknown=True)
        if kind not in ("binary", "multiclass"):
            # In scikit-learn's own words, which its checks look for.
            raise ArgumentError(f"Unknown label type: {kind}", expected="one label for each row")
        self._target_rank = y.ndim
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) == 1:
            raise ArgumentError(
                "Classifier can't train when only one class is present",
                received=f"{self.classes_[0]!r}",
            )
        return np.eye(len(self.classes_))[numbers.reshape(-1)]

    def decision_function(self, X: Any) -> np.ndarray:
        """Returns what the model puts out for each class."""
        return self._predicted(X)

    def predict(self, X: Any) -> np.ndarray:
        """Returns the likeliest label of each row."""
        numbers = self._predicted(X).argmax(-1)
        found = self.classes_[numbers]
        return found if self._target_rank == 1 else found.reshape(-1, 1)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Returns the share of rows whose label is right."""
        found = self.predict(X)
        return float(_sklearn().metrics.accuracy_score(y, found, sample_weight=sample_weight))


class SKLearnRegressor(_Estimator):
    """A regressor for scikit-learn around a model.

    Args:
        model: A compiled model, of which each `fit` trains a copy; or a function that returns one,
            `model(X=X, y=y, **model_kwargs)`, `y` as the model will see it.
        warm_start: Whether `fit` goes on with the model of the last one, or with `model` itself.
        model_kwargs: For the function.
        fit_kwargs: For `model.fit`, as well as what `fit` is given.

    Attributes:
        model_, history_: After `fit`.
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.estimator_type = "regressor"
        tags.regressor_tags = _sklearn().utils.RegressorTags(poor_score=True)
        return tags

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Returns R², 1 at best."""
        found = self.predict(X)
        return float(_sklearn().metrics.r2_score(y, found, sample_weight=sample_weight))


class SKLearnTransformer(_Estimator):
    """A step of a pipeline of scikit-learn: what comes after it gets what a model puts out.

    Args:
        model, warm_start, model_kwargs, fit_kwargs: As in `SKLearnRegressor`.

    Attributes:
        model_, history_: After `fit`.
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags = _sklearn().utils.TransformerTags(preserves_dtype=[])
        return tags

    def transform(self, X: Any) -> np.ndarray:
        """Returns what the model puts out for each row."""
        return self._predicted(X)

    def fit_transform(self, X: Any, y: Any = None, **fit_params: Any) -> np.ndarray:
        """Trains, and returns what the model then puts out."""
        return self.fit(X, y, **fit_params).transform(X)
