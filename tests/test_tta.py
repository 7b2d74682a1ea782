"""Test-time augmentation equals the mean of predictions made by hand."""

import keras
import numpy as np
import pytest

import kerasopt as ko
from kerasopt.augmentation import predict_tta
from tests.models import small_cnn, stripes

X = stripes(10, size=16)[0]


@pytest.fixture(scope="module")
def model():
    return small_cnn(size=16)


def by_hand(model, views):
    return np.mean([model.predict(view, verbose=0) for view in views], axis=0)


def test_identity_and_flip(model):
    found = predict_tta(model, X)
    assert found.dtype == "float32"
    assert found.shape == (10, 4)
    np.testing.assert_allclose(found, by_hand(model, [X, X[:, :, ::-1]]), atol=1e-5)
    np.testing.assert_array_equal(
        predict_tta(model, X, views=["identity"]), model.predict(X, verbose=0)
    )


def test_a_flip_does_not_matter_any_more(model):
    np.testing.assert_allclose(predict_tta(model, X), predict_tta(model, X[:, :, ::-1]), atol=1e-5)


def test_zoom_is_the_middle(model):
    views = []
    predict_tta(Keeper(views), X, views=["zoom"])
    expected = keras.ops.image.resize(X[:, 1:15, 1:15], (16, 16))
    np.testing.assert_allclose(views[0], expected, atol=1e-3)


def test_shift_is_four_views_by_a_sixteenth():
    views = []
    predict_tta(Keeper(views), X, views=["shift"])
    down, up, right, left = views
    np.testing.assert_array_equal(down[:, 1:], X[:, :-1])
    np.testing.assert_array_equal(down[:, 0], X[:, 0])
    np.testing.assert_array_equal(up[:, :-1], X[:, 1:])
    np.testing.assert_array_equal(right[:, :, 1:], X[:, :, :-1])
    np.testing.assert_array_equal(left[:, :, :-1], X[:, :, 1:])
    np.testing.assert_array_equal(left[:, :, -1], X[:, :, -1])


class Keeper:
    """A model by duck typing, which keeps what it is shown."""

    def __init__(self, views):
        self.views = views

    def predict(self, images):
        self.views.append(images)
        return np.stack([images.mean((1, 2, 3)), images.max((1, 2, 3))], axis=-1)


def test_every_view_counts_once():
    found = predict_tta(Keeper(views := []), X, views=["identity", "shift", np.flipud])
    assert len(views) == 6
    expected = np.mean([Keeper([]).predict(view) for view in views], axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_batches():
    found = predict_tta(Keeper(views := []), X, views=["identity"], batch_size=4)
    assert [len(view) for view in views] == [4, 4, 2]
    np.testing.assert_allclose(found, Keeper([]).predict(X))


@pytest.mark.slow
def test_random_views_of_an_augmentation(model):
    augmentation = ko.augmentation.Augmentation(
        [keras.layers.RandomFlip("horizontal"), keras.layers.RandomBrightness(0.2)], seed=3
    )
    found = predict_tta(model, X, views=4, augmentation=augmentation)
    np.testing.assert_array_equal(predict_tta(model, X, views=4, augmentation=augmentation), found)
    # The layer's own stream has not moved.
    views = [np.asarray(augmentation(X, training=True)) for _ in range(4)]
    assert np.any(views[0] != views[1])
    np.testing.assert_allclose(found, by_hand(model, views), atol=1e-5)


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def test_mean_of_probabilities(model):
    flipped = X[:, :, ::-1]
    expected = np.mean([softmax(model.predict(v, verbose=0)) for v in (X, flipped)], axis=0)
    found = predict_tta(model, X, average="probabilities")
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(-1), 1.0, atol=1e-6)
    ends_in_softmax = keras.Model(model.input, keras.layers.Softmax()(model.output))
    for average in ("probabilities", "logits"):  # no softmax of a softmax
        again = predict_tta(ends_in_softmax, X, average=average)
        np.testing.assert_allclose(again, expected, atol=1e-6)


@pytest.mark.slow
def test_a_tflite_file(model):
    lite = ko.export.TFLiteModel(ko.export.to_tflite(model).content)
    found = predict_tta(lite, X, views=["identity", "flip", "zoom"])
    np.testing.assert_allclose(
        found, predict_tta(model, X, views=["identity", "flip", "zoom"]), atol=1e-3
    )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"views": ["flop"]}, ValueError, "`views` must be one of 'identity'.*Did you mean 'flip'"),
        ({"views": ()}, ValueError, "`views` must hold at least one view"),
        ({"views": "flip"}, TypeError, r"in brackets: \['flip'\]"),
        ({"views": [3]}, TypeError, "`views` must hold names and functions. Received: view=3"),
        ({"views": 0}, ValueError, "`views` must be an integer >= 1"),
        ({"views": 2}, TypeError, "`augmentation` must be a kerasopt.augmentation.Augmentation"),
        ({"augmentation": 1}, TypeError, "`views` must be a number where `augmentation`"),
        ({"views": [lambda x: x[:, 1:]]}, ValueError, r"keep the shape.*\(10, 15, 16, 3\)"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be an integer >= 1"),
        ({"average": "mean"}, ValueError, "`average` must be one of 'logits', 'probabilities'"),
        ({"images": X[0]}, ValueError, "`images` must have the shape"),
        ({"images": X[:0]}, ValueError, "with one image at least"),
    ],
)
def test_misuse(model, options, error, message):
    with pytest.raises(error, match=message):
        predict_tta(model, **{"images": X, **options})


def test_outputs_that_are_no_classes(model):
    with pytest.raises(ValueError, match="`model` must have one output"):
        predict_tta(keras.Model(model.input, model.get_layer("stem_relu").output), X)
    with pytest.raises(ValueError, match="`model` must have one output"):
        predict_tta(keras.Model(model.input, [model.output, model.output]), X)
    single = keras.Model(model.input, keras.layers.Dense(1)(model.output))
    with pytest.raises(ValueError, match="for two classes or more"):
        predict_tta(single, X, average="probabilities")
