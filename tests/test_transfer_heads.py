"""Heads of `build_classifier`: sizes of `"fc"`, own layers, and how they are known again."""

import keras
import numpy as np
import pytest

from kerasopt.transfer import blocks, build_classifier, split_layers
from tests.backbones import tiny_maps

layers = keras.layers


@pytest.fixture(scope="module")
def maps():
    return tiny_maps()


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (4, 8, 8, 3)).astype("float32")


def own_model():
    """Two poolings side by side, as a functional model."""
    features = keras.Input((2, 2, 6))
    both = [layers.GlobalAveragePooling2D()(features), layers.GlobalMaxPooling2D()(features)]
    return keras.Model(features, layers.Concatenate(name="both")(both))


OWN = {
    "a list without logits": (
        lambda: [layers.Flatten(), layers.Dense(5, "relu"), layers.Dense(4, "relu")],
        ["head_input", "head_flatten", "head_dense", "head_dense_1", "logits"],
    ),
    "a list with logits": (
        lambda: [layers.Conv2D(5, 1, name="squeeze"), layers.Flatten(), layers.Dense(3)],
        ["head_input", "squeeze", "head_flatten", "logits"],
    ),
    "one layer": (
        layers.GlobalMaxPooling2D,
        ["head_input", "head_global_max_pooling2d", "logits"],
    ),
    "an unbuilt Sequential": (
        lambda: keras.Sequential([layers.GlobalMaxPooling2D(), layers.Dense(3, name="out")]),
        ["head_input", "head_global_max_pooling2d", "logits"],
    ),
    "a functional model": (
        own_model,
        [
            "head_input",
            "head_global_average_pooling2d",
            "head_global_max_pooling2d",
            "both",
            "logits",
        ],
    ),
}


@pytest.mark.parametrize("case", OWN)
def test_own_layers_train_and_are_known_again(maps, images, case, tmp_path):
    make, names = OWN[case]
    model = build_classifier(maps, 3, head=make())
    base, top = split_layers(model)
    assert [layer.name for layer in top] == names
    assert model.output_shape == (None, 3)
    assert model.get_layer("logits").activation is keras.activations.linear
    assert [block.name for block in blocks(model)] == ["stem", "block1", "block2"]

    kernel = model.get_layer("logits").kernel.numpy()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01), loss)
    model.fit(images, np.array([0, 1, 2, 0]), verbose=0)
    assert not np.array_equal(model.get_layer("logits").kernel, kernel)

    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        again.predict(images, verbose=0), model.predict(images, verbose=0)
    )
    assert [[layer.name for layer in part] for part in split_layers(again)] == [
        [layer.name for layer in part] for part in (base, top)
    ]
    assert [[layer.name for layer in block.layers] for block in blocks(again)] == [
        [layer.name for layer in block.layers] for block in blocks(model)
    ]
    # As a backbone it is cut before its own head, whatever that begins with.
    second = build_classifier(again, 4)
    assert [layer.name for layer in split_layers(second)[0]] == [layer.name for layer in base]


def test_own_layers_are_copied_with_weights_and_flags(maps, images):
    frozen = layers.Dense(4, "relu", name="frozen", trainable=False)
    frozen.build((None, 6))
    head = [layers.GlobalAveragePooling2D(), frozen]
    first, second = (build_classifier(maps, 3, head=head) for _ in range(2))
    for model in (first, second):
        copy = model.get_layer("frozen")
        assert copy is not frozen
        assert not copy.trainable
        np.testing.assert_array_equal(copy.kernel, frozen.kernel)
    expected = maps.predict(images, verbose=0).mean((1, 2))
    features = keras.Model(first.input, first.get_layer("frozen").output)
    np.testing.assert_allclose(
        features.predict(images, verbose=0), frozen(expected), rtol=1e-4, atol=1e-5
    )


def test_names_of_own_layers_give_way_to_the_backbones(maps):
    head = [layers.GlobalAveragePooling2D(name="head_pool"), layers.Dense(4, "relu", name="image")]
    names = [layer.name for layer in split_layers(build_classifier(maps, 3, head=head))[1]]
    assert names == ["head_input", "head_head_pool", "head_image", "logits"]


@pytest.mark.parametrize("dropout", [0, 0.3])
def test_fc_with_several_layers(maps, dropout):
    model = build_classifier(maps, 3, head="fc", fc_units=[16, 8], dropout=dropout)
    top = split_layers(model)[1]
    dense = [layer.units for layer in top if isinstance(layer, layers.Dense)]
    assert dense == [16, 8, 3]
    drops = [(i, layer.rate) for i, layer in enumerate(top) if isinstance(layer, layers.Dropout)]
    assert drops == ([(2, 0.3), (4, 0.3)] if dropout else [])
    assert [layer.name for layer in top if isinstance(layer, layers.Dense)] == [
        "head_dense",
        "head_dense_1",
        "logits",
    ]


def test_own_logits_are_float32_under_mixed_precision(maps):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        head = [layers.GlobalAveragePooling2D(), layers.Dense(4, "relu"), layers.Dense(3)]
        model = build_classifier(maps, 3, head=head)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("head_dense").compute_dtype == "float16"
    assert model.output.dtype == "float32"


def pooled(*more):
    return [layers.GlobalAveragePooling2D(), *more]


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda: {"head": []}, TypeError, "`head` must be 'features', 'gap', 'fc', a Keras layer"),
        (lambda: {"head": pooled(len)}, TypeError, "or a list of Keras layers. Received"),
        (lambda: {"head": keras.Sequential()}, ValueError, "must have at least one layer"),
        (
            lambda: {"head": pooled(layers.Dense(3, "softmax"))},
            ValueError,
            "must end in logits or in features, not in probabilities.*from_logits=True",
        ),
        (lambda: {"head": pooled(layers.Dense(3), layers.Softmax())}, ValueError, "probabilities"),
        (
            lambda: {"head": pooled(layers.Dense(3), layers.Activation("softmax"))},
            ValueError,
            "probabilities",
        ),
        (lambda: {"head": pooled(layers.Dense(3, "sigmoid"))}, ValueError, "probabilities"),
        (
            lambda: {"head": pooled(layers.Dense(5))},
            ValueError,
            "must end in 3 logits, one per class.*units=5.*Give it units=3",
        ),
        (
            lambda: {"head": layers.Conv2D(4, 1)},
            ValueError,
            r"must turn feature maps into features.*\(None, 2, 2, 4\).*GlobalAveragePooling2D",
        ),
        (lambda: {"head": layers.Dense(3)}, ValueError, "must turn feature maps into features"),
        (
            lambda: {"head": pooled(layers.Conv2D(4, 1))},
            ValueError,
            r"each takes what the one before it returns.*Conv2D 'conv2d\w*' behind \(None, 6\)",
        ),
        (
            lambda: {"head": pooled(layers.Lambda(lambda x: x + 1))},
            ValueError,
            "`head` must be made of layers that can be copied.*in place of the lambda",
        ),
        (
            lambda: {"head": layers.Flatten(), "dropout": 0.5},
            ValueError,
            r"`dropout` must be left alone.*Put keras.layers.Dropout\(0.5\) into `head`",
        ),
        (lambda: {"fc_units": (8,)}, ValueError, "`fc_units` must be left alone unless head='fc'"),
        (lambda: {"head": "fc", "fc_units": 8}, TypeError, "`fc_units` must be a tuple"),
        (lambda: {"head": "fc", "fc_units": ()}, TypeError, "`fc_units` must be a tuple"),
        (lambda: {"head": "fc", "fc_units": (8, 0)}, ValueError, "must be an integer >= 1"),
        (lambda: {"head": "fc", "fc_units": (8.0,)}, TypeError, "must be an integer >= 1"),
    ],
)
def test_bad_heads(maps, change, error, match):
    with pytest.raises(error, match=match):
        build_classifier(maps, 3, **change())
