"""Sensitivity of layers, suggested targets, and the report on sparse inference."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasopt.pruning import (
    ConstantSchedule,
    Masks,
    PruneLowMagnitude,
    Sensitivity,
    magnitude_mask,
    sensitivity,
    sparse_inference_report,
)
from tests.models import compiled, small_cnn, stripes

L = keras.layers
X, Y = stripes(64)


@pytest.fixture(scope="module")
def trained():
    model = compiled(small_cnn(), jit_compile=False, optimizer=keras.optimizers.Adam(5e-3))
    model.fit(X, Y, batch_size=8, epochs=8, verbose=0)
    return model


@pytest.fixture(scope="module")
def measured(trained):
    return sensitivity(trained, (X, Y), sparsities=[0.5, 0.9])


def test_scores_are_those_of_evaluate(trained, measured):
    before = trained.get_weights()
    assert measured.baseline == pytest.approx(trained.evaluate(X, Y, verbose=0)[1])
    assert measured.paths == ("stem_conv", "block1_project", "block2_conv", "logits")
    assert measured.sizes == (216, 64, 1152, 64)
    for path, scores in zip(measured.paths, measured.scores, strict=True):
        kernel = trained.get_layer(path).kernel
        weights = np.array(kernel)
        for sparsity, score in zip(measured.sparsities, scores, strict=True):
            kernel.assign(weights * magnitude_mask(weights, sparsity))
            assert score == pytest.approx(trained.evaluate(X, Y, verbose=0)[1])
            kernel.assign(weights)
    for one, other in zip(before, trained.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_score_of_ones_own_and_other_forms_of_data(trained, measured):
    data = tf.data.Dataset.from_tensor_slices((X, keras.ops.one_hot(Y, 4))).batch(16)
    again = sensitivity(trained, data, sparsities=[0.5, 0.9])
    assert again == measured
    before = trained.get_weights()
    loss = sensitivity(
        trained, None, sparsities=[0.5], layers="logits",
        score=lambda model: -model.evaluate(X, Y, verbose=0)[0],
    )  # fmt: skip
    assert loss.scores[0][0] < loss.baseline < 0.0
    with pytest.raises(ZeroDivisionError):
        sensitivity(trained, None, score=lambda model: 1 / 0)

    calls = []

    def fails_later(model):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return 0.0

    with pytest.raises(KeyboardInterrupt):
        sensitivity(trained, None, score=fails_later)
    for one, other in zip(before, trained.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_patterns_have_one_column(trained):
    found = sensitivity(trained, (X, Y), structure="2:4")
    assert found.sparsities == (0.5,)
    assert sensitivity(trained, (X, Y), sparsities=[0.5], structure="block:1x4").paths


def test_suggestion_spares_what_is_sensitive():
    found = Sensitivity(0.9, (0.5, 0.8), ("tough", "weak"), (100, 100), ((0.9, 0.89), (0.7, 0.3)))
    for total in (0.0, 0.3, 0.45, 0.7, 0.8):
        targets = found.suggest(total)
        assert sum(targets.values()) / 2 == pytest.approx(total, abs=2e-4)
        assert targets["^tough$"] >= targets["^weak$"]
    # Both lose 0.01 of score: 0.8 in one, 0.5 * 0.01 / 0.2 in the other.
    assert found.suggest((0.8 + 0.025) / 2) == pytest.approx(
        {"^tough$": 0.8, "^weak$": 0.025}, abs=2e-4
    )
    with pytest.raises(ValueError, match=r"`sparsity` must be at most 0.8, the highest"):
        found.suggest(0.9)


def test_suggestion_is_what_the_callback_takes(trained, measured):
    model = small_cnn()
    masks = Masks(model, 0.6, schedule=ConstantSchedule(), targets=measured.suggest(0.6))
    masks.update(0)
    assert masks.sparsity == pytest.approx(0.6, abs=0.01)


def test_table_and_figure(measured, tmp_path):
    lines = str(measured).splitlines()
    assert lines[0] == f"dense: {measured.baseline:.4f}"
    assert lines[1].split() == ["layer", "weights", "50.00%", "90.00%"]
    assert [line.split()[0] for line in lines[2:]] == list(measured.paths)
    figure = measured.figure()
    image = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(image, measured.baseline - np.array(measured.scores))
    figure.savefig(tmp_path / "sensitivity.png")
    assert measured.to_dict()["paths"] == measured.paths


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"data": X}, ValueError, "`data` must hold labels"),
        ({"sparsities": []}, ValueError, "`sparsities` must hold at least one number"),
        ({"sparsities": [0.9, 0.5]}, ValueError, "increasing"),
        ({"sparsities": [1.0]}, ValueError, r"`sparsities` must be a number in \(0, 1\)"),
        ({"sparsities": 0.5}, TypeError, "`sparsities` must be a list of numbers"),
        ({"layers": "stem_cnov"}, ValueError, "Did you mean 'stem_conv'"),
        ({"structure": "3:4", "layers": "logits|stem"}, None, ""),
        ({"structure": "1:16", "layers": "stem"}, ValueError, "must fit one of the layers"),
        ({"model": keras.Sequential([L.Dense(2)])}, ValueError, "needs a model that is built"),
    ],
)
def test_bad_input(trained, options, error, message):
    arguments = {"model": trained, "data": (X, Y), **options}
    if error is None:
        assert sensitivity(**arguments).sparsities == (0.75,)
        return
    with pytest.raises(error, match=message):
        sensitivity(**arguments)


# Sparse inference


def sparse_net(size=33, first="same", between=None):
    """A net as XNNPACK wants it: 3x3 stride 2, then 1x1 and depthwise, then a mean."""
    inputs = keras.Input((size, size, 3))
    x = L.ZeroPadding2D(1)(inputs) if first == "valid" else inputs
    x = L.Conv2D(8, 3, strides=2, padding=first, name="stem")(x)
    x = L.ReLU(6.0)(L.BatchNormalization()(x))
    y = L.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    y = L.Conv2D(8, 1, activation="silu", name="one")(y)
    x = L.Add()([x, y])
    if between is not None:
        x = between(x)
    inner = keras.Sequential(
        [
            L.ZeroPadding2D(2),
            L.DepthwiseConv2D(5, strides=2),
            L.Conv2D(16, 1, use_bias=False, name="two"),
        ],
        name="inner",
    )
    x = L.GlobalAveragePooling2D()(inner(x))
    return keras.Model(inputs, L.Dense(4, name="logits")(x))


@pytest.mark.parametrize(("size", "first"), [(33, "same"), (32, "valid"), (33, "valid")])
def test_a_graph_that_fits_qualifies_with_two_thirds_zeros(size, first):
    model = sparse_net(size, first)
    names = [weight.path for weight in model.weights]
    before = sparse_inference_report(model)
    assert {row.path for row in before.layers if row.qualifies} == {"one", "inner/two"}
    assert not before.qualifies
    assert "0.0% zeros; at least two thirds are needed" in before.blockers[0]
    masks = Masks(model, 0.7, schedule=ConstantSchedule(), layers="one|two")
    masks.update(0)
    report = sparse_inference_report(model)
    assert report.qualifies
    assert report.sparsity == pytest.approx(0.7, abs=0.01)
    assert "This model qualifies: 70.3% zeros" in str(report)
    assert "on ARM only, in float only" in str(report)
    assert [weight.path for weight in model.weights] == names
    assert model.get_layer("one").output is not None  # one node as before: it was a copy


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: sparse_net(32), "no 3x3 convolution with stride 2"),
        (lambda: sparse_net(between=L.MaxPooling2D()), "MaxPooling2D.*is not supported"),
        (lambda: sparse_net(between=L.Conv2D(8, 3, padding="same")), "only 1x1 convolutions"),
        (lambda: sparse_net(between=L.Activation("tanh")), "activation 'tanh'"),
        (
            lambda: sparse_net(between=L.DepthwiseConv2D(3, strides=2, padding="valid")),
            "only 3x3 and 5x5, padded",
        ),
        (
            lambda: keras.Sequential(
                [keras.Input((33, 33, 3)), L.Conv2D(4, 3, strides=2, padding="same")]
            ),
            "no global average pooling",
        ),
    ],
)
def test_what_is_in_the_way_is_named(make, reason):
    report = sparse_inference_report(make())
    assert not report.qualifies
    assert not any(row.qualifies for row in report.layers)
    assert re.search(reason, " ".join(report.blockers))


def test_a_subclassed_model_is_told_to_be_unreadable():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = L.Dense(2)

        def call(self, x):
            return self.dense(x)

    model = Net()
    model(np.zeros((1, 4), "float32"))
    report = sparse_inference_report(model)
    assert "is not known to Keras" in report.blockers[0]
    assert report.layers[0].reason == "only 1x1 convolutions are computed sparsely"


def test_mobilenet_v2_of_keras_does_not_qualify():
    model = keras.applications.MobileNetV2((96, 96, 3), alpha=0.35, weights=None, classes=4)
    report = sparse_inference_report(model)
    assert "no 3x3 convolution with stride 2 on 3 channels" in report.blockers[0]


def test_the_callback_keeps_the_names_that_are_fixed():
    import inspect

    parameters = inspect.signature(PruneLowMagnitude).parameters
    assert list(parameters)[:5] == ["final_sparsity", "schedule", "layers", "structure", "scope"]
    assert [p.default for p in parameters.values()][:5] == [0.8, None, None, "element", "layer"]
