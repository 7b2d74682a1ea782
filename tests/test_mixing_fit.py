"""MixUp and CutMix in `fit`: every mode, their moments, what is left of them."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasopt as ko
from kerasopt.augmentation import CutMix, MixUp
from tests.models import compiled, small_cnn, stripes
from tests.processes import run_alone


def tiny():
    """The smallest net that takes the images of `stripes`."""
    outputs = [keras.layers.Flatten(), keras.layers.Dense(4)]
    return compiled(keras.Sequential([keras.Input((12, 12, 3)), *outputs]))


class Watch(keras.callbacks.Callback):
    """Counts traces of the train step and keeps what the model got in each batch."""

    def __init__(self):
        super().__init__()
        self.traces, self.batches = 0, []

    def on_train_begin(self, logs=None):
        session, self.image = ko.training.session(self.model), None
        shape = (4, *self.model.input_shape[1:])
        self.image = tf.Variable(tf.zeros(shape), trainable=False)

        def around(train_step):
            def step(data):
                self.traces += 1
                self.image.assign(data[0])
                return train_step(data)

            return step

        session.hook(self, "train_step", around, order=0)  # inside of MixUp's
        session.retrace()

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(self.image.numpy())


SLOW = pytest.mark.slow
MODES = [
    ({}, [MixUp]),
    ({}, [CutMix]),
    ({}, [MixUp, CutMix]),
    ({"run_eagerly": True}, [MixUp, CutMix]),
    ({"steps_per_execution": 2}, [MixUp, CutMix]),
    pytest.param({"jit_compile": True}, [MixUp], marks=SLOW),
    pytest.param({"jit_compile": True}, [CutMix], marks=SLOW),
    pytest.param({"jit_compile": True}, [MixUp, CutMix], marks=SLOW),
]


@functools.cache
def traces_without(**options):
    """How often Keras itself traces: twice, for the first time makes the metrics' variables."""
    watch, (x, y) = Watch(), stripes(8)
    compiled(small_cnn(), **options).fit(x, y, batch_size=4, verbose=0, callbacks=[watch])
    return watch.traces


@pytest.mark.slow
@pytest.mark.parametrize(("options", "callbacks"), MODES)
def test_trains_in_every_mode_and_adds_no_trace(options, callbacks):
    model = compiled(small_cnn(), **options)
    x, y = stripes(16)
    watch = Watch()
    made = [kind(seed=i, start=0.25, end=0.75) for i, kind in enumerate(callbacks)]
    history = model.fit(
        x, y, batch_size=4, epochs=4, verbose=0, validation_data=(x, y), callbacks=[*made, watch]
    ).history
    assert np.isfinite(history["loss"]).all()
    if "run_eagerly" not in options:
        assert watch.traces == traces_without(**options)
    assert not {"call", "compute_loss", "train_step", "make_train_function"} & set(vars(model))


def plain_or(x, batches, *, atol=1e-3):
    """Tells for each batch: is every image one of `x`, and is every pixel one of `x`?"""
    pixels = np.unique(x)
    images = {image.tobytes() for image in x}
    for seen in batches:
        if all(image.tobytes() in images for image in seen):
            yield "plain"
        else:
            yield "cut" if np.isin(seen, pixels).all() else "blend"


def test_each_batch_is_of_one_kind_and_moments_are_kept():
    x, y = stripes(16)
    watch, model = Watch(), tiny()
    made = [MixUp(1.0, seed=1, start=1, end=0.75), CutMix(seed=2, start=0.5)]
    model.fit(x, y, batch_size=4, epochs=16, verbose=0, callbacks=[*made, watch])
    kinds = np.array([*plain_or(x, watch.batches)]).reshape(16, 4)
    # One batch in 24 is plain anyhow: every image is its own partner.
    for epochs, expected in {
        (0, 1): {"plain"},
        (1, 8): {"plain", "blend"},
        (8, 12): {"plain", "blend", "cut"},
        (12, 16): {"plain", "cut"},
    }.items():
        found = kinds[slice(*epochs)].ravel().tolist()
        assert expected - {"plain"} <= set(found) <= expected
        assert epochs == (0, 1) or found.count("plain") <= len(found) / 4
    first, second = ([(e.epoch, e.kind, e.label) for e in one.events] for one in made)
    assert first == [
        (1.0, "other", "MixUp until epoch 12; accuracy is of the larger part's label"),
        (12.0, "other", "MixUp ends"),
    ]
    assert [epoch for epoch, _, _ in second] == [8.0]


def test_probability_leaves_whole_batches_alone():
    x, y = stripes(16)
    watch, model = Watch(), tiny()
    model.fit(
        x, y, batch_size=4, epochs=40, verbose=0, callbacks=[MixUp(1.0, probability=0.3), watch]
    )
    kinds = [*plain_or(x, watch.batches)]
    assert 0.15 < kinds.count("blend") / 160 < 0.45


@pytest.mark.slow
def test_seed():
    def seen(seed):
        x, y = stripes(8)
        watch, model = Watch(), tiny()
        model.fit(
            x, y, batch_size=4, shuffle=False, verbose=0, callbacks=[MixUp(1.0, seed=seed), watch]
        )
        return np.stack(watch.batches)

    np.testing.assert_array_equal(seen(5), seen(5))
    assert np.any(seen(5) != seen(6))
    keras.utils.set_random_seed(1)
    first = seen(None)
    keras.utils.set_random_seed(1)
    np.testing.assert_array_equal(seen(None), first)


def test_validation_and_evaluate_see_the_data_as_it_is():
    x, y = stripes(16)
    model = compiled(small_cnn(), optimizer=keras.optimizers.SGD(0.0))
    for layer in model.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    model.compile(keras.optimizers.SGD(0.0), loss=model.loss, metrics=["accuracy"])
    expected = model.evaluate(x, y, verbose=0)
    history = model.fit(
        x, y, verbose=0, epochs=2, validation_data=(x, y), callbacks=[MixUp(1.0, seed=0)]
    ).history
    assert history["val_loss"] == pytest.approx([expected[0]] * 2, rel=1e-5)
    assert history["val_accuracy"] == pytest.approx([expected[1]] * 2)
    assert model.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-5)


def test_tf_data_of_uint8_with_a_smaller_last_batch():
    x, y = stripes(9)
    data = tf.data.Dataset.from_tensor_slices((x.astype("uint8"), y)).batch(4)
    model = tiny()
    history = model.fit(data, epochs=2, verbose=0, callbacks=[MixUp(seed=0), CutMix(seed=1)])
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.slow
def test_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model, (x, y) = compiled(small_cnn()), stripes(16)
        history = model.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=[MixUp(seed=0)])
        assert np.isfinite(history.history["loss"]).all()
    finally:
        keras.config.set_dtype_policy("float32")


_REPLICAS = """
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from kerasopt.augmentation import CutMix, MixUp
from tests.models import compiled, small_cnn, stripes
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    model = compiled(small_cnn())
x, y = stripes(16)
history = model.fit(x, y, batch_size=4, verbose=0, callbacks=[MixUp(seed=0), CutMix(seed=1)])
assert np.isfinite(history.history["loss"]).all()
"""


@pytest.mark.slow
def test_several_replicas():
    """Two logical devices have to be there before TensorFlow starts: a process of its own."""
    done = run_alone(_REPLICAS)
    assert done.returncode == 0, done.stderr[-2000:]


def test_an_interrupted_fit_is_cleared_by_the_next():
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model, (x, y) = tiny(), stripes(8)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, batch_size=4, verbose=0, callbacks=[MixUp(seed=0), Stop()])
    watch = Watch()
    model.fit(x, y, batch_size=4, verbose=0, callbacks=[CutMix(seed=0, end=0.5), watch])
    assert "blend" not in [*plain_or(x, watch.batches)]
    model.evaluate(x, y, verbose=0)
    assert not {"compute_loss", "train_step", "make_train_function"} & set(vars(model))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"jit_compile": False}, {"steps_per_execution": 2}], ids=str
)
def test_with_every_other_callback_and_augmentation(options, tmp_path):
    model = ko.transfer.build_classifier(small_cnn(), 4, augmentation=ko.augmentation.basic(seed=1))
    compiled(model, **options)
    x, y = stripes(16)
    aware = ko.quantization.QuantizeAware(start=0.5)
    history = model.fit(
        x,
        y,
        batch_size=4,
        epochs=4,
        verbose=0,
        validation_data=(x, y),
        callbacks=[
            MixUp(seed=0, end=0.75),
            ko.transfer.Unfreeze({0.25: 1, 0.5: "all"}),
            aware,
            CutMix(seed=1),
            ko.pruning.PruneLowMagnitude(0.5),
        ],
    ).history
    assert np.isfinite(history["loss"]).all()
    assert history["sparsity"][-1] == pytest.approx(0.5, abs=0.05)
    assert ko.quantization.is_quantization_aware(aware.quantized_model)
    assert not {"call", "compute_loss", "train_step", "make_train_function"} & set(vars(model))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))
