"""The head is scikit-learn's solution, and nothing else of the model has changed."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score

import kerasopt as ko
from tests.models import compiled, small_cnn
from tests.probing import NARROW, WIDE, X, Y, linear, noisy


def scaled(features):
    """Mean 0; variance 1 over all features together."""
    centered = features.astype("float64") - features.mean(axis=0, dtype="float64")
    return centered / np.sqrt(np.mean(centered**2))


def inputs_of(model, layer, x=X):
    return keras.Model(model.inputs[0], model.get_layer(layer).input).predict(x, verbose=0)


def slow(value):
    return pytest.param(value, marks=pytest.mark.slow)


def oracle(features, labels, c, **options):
    return LogisticRegression(C=c, tol=1e-8, max_iter=10_000, **options).fit(features, labels)


# The solution


@pytest.mark.parametrize("c", [0.01, 1.0])
@pytest.mark.parametrize("features", [WIDE, NARROW])
def test_predictions_are_the_decision_function_of_scikit_learn(features, c):
    x, y = noisy()
    x = x[..., :features]
    model = linear(features)
    result = ko.transfer.linear_probe(model, (x, y), c_values=[c])
    truth = scaled(x[:, 0, 0])
    expected = oracle(truth, y, c).decision_function(truth)
    found = model.predict(x, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_array_equal(found.argmax(-1), expected.argmax(-1))
    assert (result.c, result.num_features, result.num_images) == (c, features, 60)


@pytest.mark.parametrize("head", [slow("features"), "gap", slow("fc")])
def test_the_head_of_a_classifier_is_solved_on_its_own_input(head):
    model = ko.transfer.build_classifier(small_cnn(), 4, head=head)
    before = (model.predict(X, verbose=0).argmax(-1) == Y).mean()
    result = ko.transfer.linear_probe(model, (X, Y), folds=3)
    features = inputs_of(model, "logits")
    expected = oracle(scaled(features), Y, result.c).decision_function(scaled(features))
    found = model.predict(X, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_array_equal(found.argmax(-1), expected.argmax(-1))
    assert (found.argmax(-1) == Y).mean() > max(before, 0.9)


def test_predictions_are_the_logits_of_the_written_weights():
    model = ko.transfer.build_classifier(small_cnn(), 4)
    ko.transfer.linear_probe(model, (X, Y), folds=3)
    head = model.get_layer("logits")
    kernel, bias = (np.asarray(w, "float64") for w in head.get_weights())
    expected = inputs_of(model, "logits").astype("float64") @ kernel + bias
    np.testing.assert_allclose(model.predict(X, verbose=0), expected, atol=1e-4)


def test_cross_validation_is_that_of_scikit_learn():
    x, y = noisy(spread=0.2)
    # In the order in which the probe splits them: class by class, by the sum of the features.
    order = np.lexsort((x.sum(axis=(1, 2, 3)), y))
    x, y = x[order], y[order]
    result = ko.transfer.linear_probe(linear(), (x, y), c_values=(1.0, 1e-3, 1e-2), folds=4, seed=3)
    folds = StratifiedKFold(4, shuffle=True, random_state=3)
    features = scaled(x[:, 0, 0])
    assert result.c_values == (1e-3, 1e-2, 1.0)
    for index, c in enumerate(result.c_values):
        learner = LogisticRegression(C=c, tol=1e-8, max_iter=10_000)
        accuracy = cross_val_score(learner, features, y, cv=folds)
        loss = -cross_val_score(learner, features, y, cv=folds, scoring="neg_log_loss")
        assert result.accuracy[index] == pytest.approx(accuracy.mean())
        assert result.accuracy_std[index] == pytest.approx(accuracy.std())
        assert result.log_loss[index] == pytest.approx(loss.mean(), rel=1e-3)
    assert result.c == result.c_values[int(np.argmin(result.log_loss))]
    assert 0.3 < max(result.accuracy) < 1.0


def test_of_two_classes_the_difference_is_solved():
    x, y = noisy(classes=2, spread=0.2)
    pair, single = linear(classes=2), linear(classes=1)
    for model in (pair, single):
        ko.transfer.linear_probe(model, (x, y), c_values=[0.1])
    truth = scaled(x[:, 0, 0])
    expected = oracle(truth, y, 0.1).decision_function(truth)
    found = pair.predict(x, verbose=0)
    np.testing.assert_allclose(found[:, 1] - found[:, 0], expected, atol=5e-4)
    np.testing.assert_allclose(single.predict(x, verbose=0)[:, 0], expected, atol=5e-4)


def test_a_head_without_bias():
    x, y = noisy()
    model = linear(use_bias=False)
    ko.transfer.linear_probe(model, (x, y), c_values=[0.1])
    features = x[:, 0, 0].astype("float64")
    features /= np.sqrt(np.mean(features**2))
    expected = oracle(features, y, 0.1, fit_intercept=False).decision_function(features)
    found = model.predict(x, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("features", [WIDE, NARROW])
@pytest.mark.parametrize("spread", [0.0, 5.0])
def test_extreme_data_warns_of_nothing(features, spread):
    """Classes that differ in nothing, or that any line separates: warnings are errors here."""
    x, y = noisy(count=20, spread=spread)
    x = x[..., :features]
    result = ko.transfer.linear_probe(linear(features), (x, y), c_values=(1e-6, 1.0, 1e6))
    assert np.isfinite(result.log_loss).all()


# What is the same


def test_order_form_and_batches_of_the_data_do_not_matter():
    def solve(data, **options):
        model = small_cnn()
        result = ko.transfer.linear_probe(model, data, folds=3, **options)
        return result, model.get_layer("logits").get_weights()

    first, weights = solve((X, Y))
    dataset = tf.data.Dataset.from_tensor_slices((X, Y))
    for data in (
        (X, Y),
        (X[::-1], Y[::-1]),
        (X, np.eye(4)[Y]),
        (X, Y[:, None].astype("float32")),
        dataset.shuffle(60, seed=2).batch(7),
        [(X[:30], Y[:30]), (X[30:], Y[30:])],
    ):
        again, other = solve(data, batch_size=13)
        assert (again.c, again.accuracy) == (first.c, first.accuracy)
        for one, two in zip(weights, other, strict=True):
            np.testing.assert_allclose(one, two, atol=1e-3 * np.abs(one).max())
    assert solve((X, Y))[1][0].tobytes() == weights[0].tobytes()


def test_seed_chooses_the_folds():
    x, y = noisy(spread=0.2)
    found = [ko.transfer.linear_probe(linear(), (x, y), seed=s).accuracy for s in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_photo_paths_with_labels():
    from tests.cases import photos

    files = ko.datasets.list_photos(photos())
    labels = [file.parent.name == "tulip" for file in files]
    result = ko.transfer.linear_probe(small_cnn(classes=2), (files, labels), folds=3)
    assert (result.num_images, result.num_classes) == (6, 2)


def test_nothing_else_of_the_model_changes():
    model = compiled(ko.transfer.build_classifier(small_cnn(), 4))
    model.fit(X, Y, batch_size=20, verbose=0)
    model.get_layer("stem_conv").trainable = False
    head = {id(weight) for weight in model.get_layer("logits").weights}

    def state():
        return (
            json.dumps(model.get_config(), default=str),
            json.dumps(model.get_compile_config(), default=str),
            [layer.trainable for layer in model.layers],
            sorted(vars(model)),
            [np.asarray(weight).tobytes() for weight in model.weights if id(weight) not in head],
            [np.asarray(value).tobytes() for value in model.optimizer.variables],
        )

    before, optimizer, step = state(), model.optimizer, model.train_function
    ko.transfer.linear_probe(model, (X, Y), folds=3)
    assert state() == before
    assert model.optimizer is optimizer
    assert model.train_function is step
    assert model.evaluate(X, Y, verbose=0)[1] > 0.9
    model.fit(X, Y, batch_size=20, verbose=0)


def test_the_given_arrays_are_left_alone():
    x, y = noisy()
    kept = x.copy(), y.copy()
    ko.transfer.linear_probe(linear(), (x, y))
    np.testing.assert_array_equal(x, kept[0])
    np.testing.assert_array_equal(y, kept[1])


def test_the_solved_head_is_saved(tmp_path):
    model = ko.transfer.build_classifier(small_cnn(), 4)
    ko.transfer.linear_probe(model, (X, Y), folds=3)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))


def test_nested_and_shared_heads():
    def solved(model):
        ko.transfer.linear_probe(model, (X, Y), folds=3)
        return (model.predict(X, verbose=0).argmax(-1) == Y).mean()

    whole = small_cnn()
    trunk = keras.Model(whole.inputs[0], whole.get_layer("head_pool").output, name="trunk")
    head = keras.Sequential([keras.Input((16,)), keras.layers.Dense(4)], name="head")
    nested = keras.Sequential([keras.Input((12, 12, 3)), trunk, head])
    kept = trunk.get_weights()
    assert solved(nested) > 0.9
    for one, two in zip(kept, trunk.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)

    shared = small_cnn()
    image = keras.Input((12, 12, 3))
    around = keras.Model(image, shared(image))
    assert solved(around) > 0.9
    assert solved(shared) > 0.9


def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = ko.transfer.build_classifier(small_cnn(), 4)
    finally:
        keras.config.set_dtype_policy("float32")
    ko.transfer.linear_probe(model, (X, Y), folds=3)
    assert model.get_layer("logits").kernel.dtype == "float32"
    assert (model.predict(X, verbose=0).argmax(-1) == Y).mean() > 0.9


@pytest.mark.slow
def test_a_fit_that_broke_is_settled_first():
    class Break(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model = compiled(small_cnn())
    with pytest.raises(KeyboardInterrupt):
        model.fit(
            X,
            Y,
            batch_size=20,
            verbose=0,
            callbacks=[ko.pruning.PruneLowMagnitude(0.5), Break()],
        )
    ko.transfer.linear_probe(model, (X, Y), folds=3)
    assert all(weight.constraint is None for weight in model.weights)
    assert (model.predict(X, verbose=0).argmax(-1) == Y).mean() > 0.9


# The result


def test_the_result_prints_as_a_table():
    result = ko.transfer.LinearProbe(
        c=0.1,
        c_values=(0.1, 1.0),
        accuracy=(0.95, 0.949),
        accuracy_std=(0.01, 0.02),
        log_loss=(0.2, 0.25),
        num_images=1234,
        num_features=1280,
        num_classes=17,
        folds=5,
        seconds=2.04,
    )
    assert str(result).splitlines() == [
        "1,234 images, 1,280 features, 17 classes, 5 folds, 2.0 s",
        "       C  accuracy     std  log loss",
        "     0.1    0.9500  0.0100    0.2000  chosen",
        "       1    0.9490  0.0200    0.2500",
    ]


@pytest.mark.slow
def test_real_photos(shared):
    """Ten photos of each of 17 flowers give a head, and fine-tuning starts from it."""
    folders = sorted(p for p in (shared / "data" / "flowers17").iterdir() if p.is_dir())
    parts = [sorted(folder.glob("*.jpg"))[::5][:15] for folder in folders]
    train = ([f for files in parts for f in files[:10]], np.repeat(np.arange(17), 10))
    test = [f for files in parts for f in files[10:]]
    model = ko.transfer.build_classifier(
        shared / "weights" / "efficientnet_lite0_imagenet.keras", 17
    )
    result = ko.transfer.linear_probe(model, train)
    assert result.num_features == 1280
    assert max(result.accuracy) > 0.8
    images = np.stack([ko.datasets.load_image(file) for file in test]).astype("float32")
    labels = np.repeat(np.arange(17), 5)
    compiled(model)
    loss, accuracy = model.evaluate(images, labels, verbose=0)
    assert accuracy > 0.7
    assert loss < 1.0
