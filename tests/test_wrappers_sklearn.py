"""Models as estimators of scikit-learn: its own checks, and what only sequences need."""

import keras
import numpy as np
import pytest
import sklearn.base
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

import alphorn
from alphorn import layers
from alphorn.wrappers import SKLearnClassifier, SKLearnRegressor, SKLearnTransformer

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.normal(size=(24, 3)).astype("float32")
LABELS = np.where(ROWS.sum(1) > 0, "up", "down")
KINDS = {"classifier": SKLearnClassifier, "regressor": SKLearnRegressor, "transformer": SKLearnTransformer}  # fmt: skip


def dense(X, y, units=None, K=alphorn):
    """A model of one layer, for whatever comes."""
    end = "softmax" if y.dtype == "float64" and set(np.unique(y)) == {0, 1} else None
    made = K.Sequential([K.Input((X.shape[1],)), K.layers.Dense(y.shape[1], activation=end)])
    made.compile("sgd", "categorical_crossentropy" if end else "mse")
    return made


def estimator(kind, **options):
    return KINDS[kind](dense, fit_kwargs={"verbose": 0, **options})


CHECKS = """check_estimator_cloneable check_estimator_repr check_no_attributes_set_in_init
    check_get_params_invariance check_set_params check_fit1d check_complex_data
    check_estimators_empty_data_messages check_supervised_y_no_nan check_requires_y_none
    check_fit_check_is_fitted check_n_features_in check_dict_unchanged""".split()


@pytest.mark.parametrize("case", KINDS)
def test_the_checks_of_scikit_learn(case) -> None:
    made = estimator(case)
    for name in CHECKS:
        getattr(estimator_checks, name)(type(made).__name__, sklearn.base.clone(made))
    assert sklearn.base.is_classifier(made) == (case == "classifier")
    assert sklearn.base.is_regressor(made) == (case == "regressor")


def test_labels_come_out_as_in_keras() -> None:
    ours = SKLearnClassifier(dense, fit_kwargs={"verbose": 0})
    theirs = keras.wrappers.SKLearnClassifier(dense, model_kwargs={"K": keras})
    ours.fit(ROWS, LABELS, epochs=2)
    theirs.fit(ROWS, LABELS, verbose=0)
    assert ours.epoch_ == 2
    theirs.model_.set_weights(ours.model_.get_weights())
    assert ours.classes_.tolist() == theirs.classes_.tolist() == ["down", "up"]
    np.testing.assert_allclose(
        ours.decision_function(ROWS), theirs.decision_function(ROWS), rtol=1e-4
    )
    assert np.array_equal(ours.predict(ROWS), theirs.predict(ROWS))
    assert ours.score(ROWS, LABELS) == theirs.score(ROWS, LABELS)
    for wrong in (np.zeros(24), RANDOM.normal(size=24)):
        with pytest.raises(ValueError, match=r"only one class|Unknown label"):
            ours.fit(ROWS, wrong)


def test_numbers_come_out_as_in_keras() -> None:
    y = ROWS @ np.array([1.0, 2.0, 3.0], "float32")
    ours = SKLearnRegressor(dense, fit_kwargs={"verbose": 0}).fit(ROWS, y)
    theirs = keras.wrappers.SKLearnRegressor(dense, model_kwargs={"K": keras})
    theirs.fit(ROWS, y, verbose=0)
    theirs.model_.set_weights(ours.model_.get_weights())
    np.testing.assert_allclose(ours.predict(ROWS), theirs.predict(ROWS), rtol=1e-4)
    np.testing.assert_allclose(ours.score(ROWS, y), theirs.score(ROWS, y), rtol=1e-4)
    two = SKLearnRegressor(dense, fit_kwargs={"verbose": 0}).fit(ROWS, np.stack([y, -y], 1))
    assert two.predict(ROWS).shape == (24, 2)


def test_a_model_is_copied_or_goes_on() -> None:
    model = dense(ROWS, np.ones((24, 1), "float32") * 2)
    before = model.get_weights()[0]
    y = ROWS[:, 0]
    fitted = SKLearnRegressor(model, fit_kwargs={"verbose": 0}).fit(ROWS, y)
    assert fitted.model_ is not model
    assert np.array_equal(model.get_weights()[0], before)
    goes_on = SKLearnRegressor(model, warm_start=True, fit_kwargs={"verbose": 0}).fit(ROWS, y)
    assert goes_on.model_ is model and not np.array_equal(model.get_weights()[0], before)
    again = sklearn.base.clone(goes_on)
    assert again.fit_kwargs == {"verbose": 0} and not hasattr(again, "model_")
    with pytest.raises(alphorn.StateError, match="not compiled"):
        SKLearnRegressor(alphorn.Sequential([layers.Dense(1)])).fit(ROWS, y)
    with pytest.raises(alphorn.ArgumentError, match="epochs"):
        fitted.set_params(epochs=3)


def test_a_transformer_is_a_step() -> None:
    y = ROWS[:, :2]
    step = SKLearnTransformer(dense, fit_kwargs={"verbose": 0})
    pipeline = make_pipeline(StandardScaler(), step).fit(ROWS, y)
    assert pipeline.transform(ROWS).shape == (24, 2)
    assert step.fit_transform(ROWS, y).shape == (24, 2)


def test_lists_of_unequal_sequences_are_rows() -> None:
    def tagger(X, y, units=2):
        made = alphorn.Sequential(
            [
                layers.Embedding(6, units, mask_zero=True),
                layers.GlobalAveragePooling1D(),
                layers.Dense(y.shape[1], activation="softmax"),
            ]
        )
        made.compile("adam", "categorical_crossentropy")
        return made

    texts = [[1 + i % 2] * (2 + i % 3 % 2) for i in range(12)]
    labels = ["odd" if i % 2 else "even" for i in range(12)]
    made = SKLearnClassifier(tagger, fit_kwargs={"verbose": 0})
    grid = {"model_kwargs": [{"units": 2}]}
    found = GridSearchCV(made, grid, cv=2, error_score="raise", refit=False).fit(texts, labels)
    assert len(found.cv_results_["params"]) == 1
    fitted = made.fit(texts, labels)
    padded = fitted.model_.predict([[*row, 0, 0] for row in texts], verbose=0)
    np.testing.assert_allclose(fitted.decision_function(texts), padded, atol=1e-6)
    steps = RANDOM.normal(size=(8, 4, 2))
    series = alphorn.Sequential(
        [alphorn.Input((4, 2)), layers.GlobalMaxPooling1D(), layers.Dense(1)]
    )
    series.compile("sgd", "mse")
    assert SKLearnRegressor(series).fit(steps, np.ones(8), verbose=0).predict(steps).shape == (8,)
