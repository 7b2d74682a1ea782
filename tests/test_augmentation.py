"""The container: the gate, seeds, dtypes, shapes, saving."""

import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasopt as ko

tf.keras.__version__  # noqa: B018 - settled before KerasCV reads it
import keras_cv  # noqa: E402

Augmentation = ko.augmentation.Augmentation


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(0, 255, (6, 16, 16, 3)).astype("float32")


def flip_and_rotate(**options):
    return Augmentation(
        [keras_cv.layers.RandomFlip("horizontal"), keras.layers.RandomRotation(0.1)], **options
    )


def classifier(augmentation):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    x = augmentation(inputs) if augmentation is not None else inputs
    x = keras.layers.Conv2D(4, 3, activation="relu")(keras.layers.Rescaling(1 / 255)(x))
    outputs = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


# The gate


def test_inference_returns_the_images_and_training_does_not(images):
    augmentation = flip_and_rotate(seed=0)
    np.testing.assert_array_equal(augmentation(images), images)
    np.testing.assert_array_equal(augmentation(images, training=False), images)
    assert np.abs(augmentation(images, training=True) - images).mean() > 1


def test_predict_is_deterministic_and_that_of_the_model_without_the_layer(images):
    model = classifier(ko.augmentation.basic(seed=0))
    plain = classifier(None)
    plain.set_weights(model.get_weights())
    first = model.predict(images, verbose=0)
    np.testing.assert_array_equal(first, model.predict(images, verbose=0))
    np.testing.assert_array_equal(first, plain.predict(images, verbose=0))


def operators(content):
    from ai_edge_litert import schema_py_generated as schema

    names = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    model = schema.ModelT.InitFromPackedBuf(content)
    return [names[code.builtinCode] for code in model.operatorCodes], [
        code.customCode for code in model.operatorCodes if code.customCode
    ]


def test_tflite_file_of_a_trained_model_has_no_random_operator(images):
    model = classifier(ko.augmentation.basic(seed=0))
    model.fit(images, np.zeros(6, int), verbose=0)
    inputs = keras.Input(batch_shape=(1, 16, 16, 3))
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(inputs, model(inputs)))
    builtin, custom = operators(converter.convert())
    assert "CONV_2D" in builtin
    assert not custom
    assert not [name for name in builtin if "RANDOM" in name or "MULTINOMIAL" in name]


# Oracle: the layers by hand


def test_output_is_that_of_the_layers_one_after_another(images):
    layers = [
        keras_cv.layers.RandomRotation((0.25, 0.25)),
        keras_cv.layers.RandomBrightness((0.1, 0.1)),
        keras_cv.layers.RandomSaturation((0.7, 0.7)),
        keras_cv.layers.Solarization((0, 255), threshold_factor=(0.5, 0.5)),
    ]
    expected = images
    for layer in layers:
        expected = layer(expected)
    np.testing.assert_allclose(
        Augmentation(layers)(images, training=True), expected, rtol=1e-5, atol=1e-3
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "layer",
    [
        keras_cv.layers.Equalization((0, 255)),
        keras_cv.layers.RandAugment((0, 255), magnitude=0.3),
        keras_cv.layers.AugMix((0, 255)),
        keras_cv.layers.RandomColorJitter((0, 255), 0.1, 0.1, 0.1, 0.1),
        keras.layers.RandAugment((0, 255)),
        keras.layers.Pipeline([keras.layers.RandomFlip(), keras.layers.RandomHue(0.1)]),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_with_branches_train_in_a_compiled_step(layer, images):
    model = classifier(Augmentation([layer], seed=0))
    history = model.fit(images, np.zeros(6, int), epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_each_image_of_a_batch_has_its_own_transformation(images):
    same = np.repeat(images[:1], 8, axis=0)
    augmentation = Augmentation([keras_cv.layers.RandomRotation(0.4)], seed=0)
    changed = np.asarray(augmentation(same, training=True)).reshape(8, -1)
    assert len(np.unique(changed.round(1), axis=0)) == 8


# Seeds


@pytest.mark.parametrize("seed", [0, 7])
def test_same_seed_same_stream_of_a_fresh_container(seed, images):
    streams = []
    for _ in range(2):
        augmentation = ko.augmentation.basic(hue=0.1, seed=seed)
        streams.append([np.asarray(augmentation(images, training=True)) for _ in range(3)])
    np.testing.assert_array_equal(streams[0], streams[1])
    assert np.abs(streams[0][0] - streams[0][1]).mean() > 1


def test_another_seed_another_stream(images):
    first, second = (flip_and_rotate(seed=s)(images, training=True) for s in (1, 2))
    assert np.abs(first - second).mean() > 1


def test_without_seed_the_global_seed_of_keras_governs(images):
    streams = []
    for _ in range(2):
        keras.utils.set_random_seed(5)
        streams.append(np.asarray(flip_and_rotate()(images, training=True)))
    np.testing.assert_array_equal(*streams)
    assert np.abs(streams[0] - flip_and_rotate()(images, training=True)).mean() > 1


def test_same_layer_twice_draws_different_numbers(images):
    turn = keras_cv.layers.RandomRotation(0.4)
    augmentation = Augmentation([turn, turn], seed=3)
    first, second = augmentation.layers
    assert first.seed != second.seed
    assert turn.seed is None


def test_seeds_of_the_caller_are_kept_and_nested_ones_are_filled():
    inner = keras_cv.layers.RandomFlip(seed=None)
    augmentation = Augmentation(
        [keras_cv.layers.RandomApply(inner, rate=0.5), keras.layers.RandomFlip(seed=11)], seed=0
    )
    applied, flip = augmentation.layers
    assert flip.seed == 11
    assert applied.seed > 0
    assert applied.get_config()["layer"].seed > 0
    assert inner.seed is None


# Dtypes and shapes


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
def test_works_in_float32_and_returns_the_compute_dtype(policy, dtype, images):
    reference = flip_and_rotate(seed=4)(images.astype(dtype), training=True)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        augmentation = flip_and_rotate(seed=4)
        augmented = augmentation(images.astype(dtype), training=True)
        plain = augmentation(images.astype(dtype))
    finally:
        keras.config.set_dtype_policy(before)
    assert augmented.dtype == plain.dtype == augmentation.compute_dtype
    np.testing.assert_array_equal(augmented, tf.cast(reference, augmented.dtype))


def test_nested_layers_work_in_float32_too():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        augmentation = Augmentation(
            [
                keras.layers.Pipeline([keras.layers.RandomFlip()]),
                keras_cv.layers.RandomApply(keras_cv.layers.RandomFlip()),
            ]
        )
    finally:
        keras.config.set_dtype_policy(before)
    flip, apply = augmentation.layers
    for layer in (flip, apply, apply.get_config()["layer"]):
        assert layer.compute_dtype == "float32"
    assert augmentation.compute_dtype == "float16"


def test_symbolic_shape_and_dtype():
    outputs = flip_and_rotate()(keras.Input((None, 20, 3), dtype="uint8"))
    assert outputs.shape == (None, None, 20, 3)
    assert outputs.dtype == "float32"
    assert flip_and_rotate().compute_output_shape((None, 8, 8, 1)) == (None, 8, 8, 1)


def test_first_layer_of_a_sequential_in_fit_without_retrace(images):
    traces = []

    @keras.saving.register_keras_serializable(package="test")
    class Counts(keras.layers.Layer):
        def call(self, x):
            traces.append(1)
            return x

    model = keras.Sequential(
        [keras.Input((16, 16, 3)), Augmentation([Counts()]), keras.layers.Flatten()]
    )
    model.add(keras.layers.Dense(1))
    model.compile("sgd", "mse")
    model.fit(images[:4], np.zeros((4, 1)), batch_size=2, epochs=2, verbose=0)
    assert len(traces) == 1
    model.fit(images, np.zeros((6, 1)), batch_size=2, verbose=0)
    assert len(traces) == 1


def test_jit_auto_trains_without_xla_and_jit_true_warns(images):
    model = classifier(flip_and_rotate())
    assert model.jit_compile is False
    with pytest.warns(UserWarning, match="doesn't support `jit_compile=True`"):
        model.compile("sgd", "mse", jit_compile=True)


def test_in_tf_data(images):
    augmentation = flip_and_rotate(seed=0)
    data = tf.data.Dataset.from_tensor_slices((images, np.arange(6))).batch(3)
    batches = list(data.map(lambda x, y: (augmentation(x, training=True), y)))
    assert [x.shape for x, _ in batches] == [(3, 16, 16, 3)] * 2
    assert np.abs(batches[0][0] - images[:3]).mean() > 1


def test_no_weights_and_none_that_train(images):
    augmentation = flip_and_rotate()
    augmentation(images, training=True)
    assert augmentation.weights == []
    assert augmentation.trainable_variables == []


def test_a_layer_with_weights_is_used_as_it_is(images):
    class Adds(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.shift = self.add_weight(shape=(), initializer="ones", trainable=False)

        def call(self, x):
            return x + self.shift

        def get_config(self):
            return {}

    layer = Adds()
    augmentation = Augmentation([layer])
    layer.shift.assign(3.0)
    assert augmentation.layers == (layer,)
    np.testing.assert_allclose(augmentation(images, training=True), images + 3, rtol=1e-6)


# Saving


def test_round_trip_through_a_file(tmp_path, images):
    model = classifier(
        Augmentation(
            [
                keras_cv.layers.RandomContrast((0, 255), 0.3),
                keras_cv.layers.RandomApply(keras_cv.layers.Grayscale(output_channels=3)),
                keras_cv.layers.RandomChoice(
                    [keras_cv.layers.RandomSharpness(0.5, (0, 255)), keras_cv.layers.RandomFlip()]
                ),
                keras.layers.RandomZoom(0.2),
            ],
            fuse=False,
            seed=9,
            name="noise",
        )
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    before, after = model.get_layer("noise"), loaded.get_layer("noise")
    assert after.get_config() == before.get_config()
    assert (after.fuse, after.seed) == (False, 9)
    np.testing.assert_array_equal(
        model.predict(images, verbose=0), loaded.predict(images, verbose=0)
    )
    np.testing.assert_array_equal(before(images, training=True), after(images, training=True))


FRESH = """
    import os, sys
    import kerasopt.augmentation
    import keras, tensorflow as tf
    assert "keras_cv" not in sys.modules
    environment = dict(os.environ)
    model = keras.models.load_model(sys.argv[1])
    assert "keras_cv" in sys.modules
    assert "tf_keras" not in sys.modules
    assert tf.keras.__version__.startswith("3."), tf.keras.__version__
    assert dict(os.environ) == environment
    assert model(tf.ones((1, 16, 16, 3)), training=True).shape == (1, 2)
"""


@pytest.mark.slow
def test_loads_in_a_fresh_process_that_keras_cv_leaves_as_it_was(tmp_path):
    classifier(ko.augmentation.basic()).save(tmp_path / "model.keras")
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FRESH), str(tmp_path / "model.keras")],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "GLOG_minloglevel": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == ""
    assert "Warning" not in run.stderr


# Bad input


def test_layers_must_be_a_list(images):
    with pytest.raises(TypeError, match=r"`layers` must be a list.*Put a single layer in brackets"):
        Augmentation(keras.layers.RandomFlip())


def test_layers_must_not_be_empty():
    with pytest.raises(ValueError, match=r"`layers` must hold at least one layer"):
        Augmentation([])


def test_layers_must_be_keras_layers():
    with pytest.raises(
        TypeError, match=r"list of Keras 3 layers\. Received: layers\[1\]=<built-in"
    ):
        Augmentation([keras.layers.RandomFlip(), abs])


@pytest.mark.parametrize(("seed", "error"), [(-1, ValueError), (0.5, TypeError), (True, TypeError)])
def test_seed_must_be_an_integer_from_0(seed, error):
    with pytest.raises(error, match=r"`seed` must be an integer >= 0\. Received: seed="):
        Augmentation([keras.layers.RandomFlip()], seed=seed)


def test_fuse_must_be_a_bool():
    with pytest.raises(TypeError, match=r"`fuse` must be True or False\. Received: fuse=1"):
        Augmentation([keras.layers.RandomFlip()], fuse=1)


def test_rank_must_be_4(images):
    with pytest.raises(ValueError, match=r"must have the shape \(batch, height.*images\[None\]"):
        flip_and_rotate()(images[0])


class CutsARow(keras.layers.Layer):
    def call(self, x):
        return x[:, 1:]


@pytest.mark.parametrize("layer", [CutsARow(), keras_cv.layers.Grayscale(output_channels=1)])
def test_a_layer_that_changes_the_shape_unannounced_is_refused(layer, images):
    augmentation = Augmentation([keras.layers.RandomFlip(), layer])
    with pytest.raises(ValueError, match=r"must keep the shape.*layer '.*Put it into the model"):
        augmentation(images, training=True)


def test_trainable_weights_are_refused(images):
    with pytest.raises(ValueError, match=r"no trainable weights.*kernel"):
        Augmentation([keras.layers.Conv2D(3, 1)])(images)


def test_a_layer_without_config_is_refused():
    class Opaque(keras.layers.Layer):
        def __init__(self, function):
            super().__init__()
            self.function = function

    with pytest.raises(ValueError, match=r"rebuilt from their config\. Received: 'opaque"):
        Augmentation([Opaque(abs)])
