"""Unfreezing that really happens during `fit`."""

import keras
import numpy as np
import pytest

import kerasopt as ko
from kerasopt.transfer import Unfreeze, blocks, build_classifier
from tests.models import compiled, small_cnn, stripes


def classifier(**options):
    backbone = small_cnn()
    model = build_classifier(backbone, 4, input_shape=(12, 12, 3), dropout=0.0)
    return compiled(model, **options)


class Spy(keras.callbacks.Callback):
    """Keeps the weights and optimizer slots at the end of each epoch, and counts traces."""

    def __init__(self):
        super().__init__()
        self.weights, self.slots, self.functions, self.iterations = [], [], set(), []

    def on_train_batch_end(self, batch, logs=None):
        self.functions.add(id(self.model.train_function))
        self._keep = [*getattr(self, "_keep", []), self.model.train_function]

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append({w.path: w.numpy() for w in self.model.weights})
        self.slots.append({v.path: v.numpy() for v in self.model.optimizer.variables})
        self.iterations.append(int(self.model.optimizer.iterations))


def moved(before, after):
    return {path for path in before if not np.array_equal(before[path], after[path])}


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"jit_compile": True}, marks=pytest.mark.slow),
        {"jit_compile": False},
        pytest.param({"steps_per_execution": 2}, marks=pytest.mark.slow),
    ],
)
def test_frozen_is_bit_equal_and_opened_moves(options):
    model, (x, y) = classifier(**options), stripes(32)
    start = {w.path: w.numpy() for w in model.weights}
    spy = Spy()
    model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[Unfreeze({1: 1, 2: "all"}), spy])
    assert len(blocks(model)) >= 2
    last = {w.path for layer in blocks(model)[-1].layers for w in layer.weights}
    norm = {
        w.path
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
        for w in layer.weights
    }
    first, second, third = spy.weights
    assert moved(start, first) == {"logits/kernel", "logits/bias"}
    assert moved(first, second) == {"logits/kernel", "logits/bias"} | (last - norm)
    assert moved(second, third) == set(start) - norm
    assert not moved({p: start[p] for p in norm}, third)
    assert len(spy.functions) == 3  # one new trace a switch and no more


@pytest.mark.slow
def test_optimizer_state_goes_on():
    model, (x, y) = classifier(), stripes(32)
    spy = Spy()
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[Unfreeze({1: "all"}), spy])
    assert spy.iterations == [4, 8]
    first, second = spy.slots
    head = [path for path in first if "logits_kernel" in path]
    assert len(head) == 2
    for path in head:
        assert np.any(first[path])
    frozen = [path for path in first if "stem_conv_kernel" in path]
    assert len(frozen) == 2
    for path in frozen:
        assert not np.any(first[path])
        assert np.any(second[path])
    # Velocity is an average of squares with decay 0.999: carried on, it can only shrink so far.
    velocity = next(path for path in head if "velocity" in path)
    assert np.all(second[velocity] >= first[velocity] * 0.999**4 - 1e-12)


def test_batch_norm_trains_on_request():
    model, (x, y) = classifier(), stripes(32)
    before = model.get_layer("stem_bn").moving_mean.numpy()
    model.fit(
        x,
        y,
        batch_size=8,
        epochs=1,
        verbose=0,
        callbacks=[Unfreeze({0: "all"}, batch_norm="train")],
    )
    assert np.any(model.get_layer("stem_bn").moving_mean.numpy() != before)


def test_history_events_and_flags():
    model, (x, y) = classifier(), stripes(32)
    callback = Unfreeze({0.5: "all"}, verbose=1)
    history = model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[callback]).history
    assert history["trainable_fraction"][0] < history["trainable_fraction"][1] <= 1.0
    assert [(event.epoch, event.kind) for event in callback.events] == [(1.0, "unfreeze")]
    assert model.get_layer("stem_conv").trainable


def test_second_fit_with_an_optimizer_built_on_the_head_alone():
    model, (x, y) = classifier(), stripes(32)
    for layer in model.layers[:-1]:
        layer.trainable = False
    model.fit(x, y, batch_size=8, verbose=0)
    before = model.get_layer("stem_conv").kernel.numpy()
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[Unfreeze({0: "all"})])
    assert int(model.optimizer.iterations) == 8
    assert np.any(model.get_layer("stem_conv").kernel.numpy() != before)


def test_regex_and_callable():
    model, (x, y) = classifier(), stripes(16)
    before = {w.path: w.numpy() for w in model.weights}
    model.fit(x, y, verbose=0, callbacks=[Unfreeze({0: "block1_project"})])
    after = {w.path: w.numpy() for w in model.weights}
    assert {path.split("/")[0] for path in moved(before, after)} == {"block1_project", "logits"}
    chosen = Unfreeze({0: lambda layer: layer.name == "stem_conv"})
    model.fit(x, y, verbose=0, callbacks=[chosen])
    final = {w.path: w.numpy() for w in model.weights}
    assert {path.split("/")[0] for path in moved(after, final)} == {"stem_conv", "logits"}


def test_nested_backbone():
    inner = keras.Model(
        *(lambda m: (m.inputs, m.get_layer("block2_conv").output))(small_cnn()), name="inner"
    )
    inputs = keras.Input((12, 12, 3))
    features = keras.layers.GlobalAveragePooling2D()(inner(inputs))
    model = compiled(keras.Model(inputs, keras.layers.Dense(4, name="logits")(features)))
    inner.trainable = False
    x, y = stripes(32)
    before = model.get_layer("inner").get_layer("stem_conv").kernel.numpy()
    spy = Spy()
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[Unfreeze({1: "all"}), spy])
    kernel = model.get_layer("inner").get_layer("stem_conv").kernel
    np.testing.assert_array_equal(spy.weights[0][kernel.path], before)
    assert np.any(kernel.numpy() != before)


def test_mixed_precision_with_loss_scaling():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = classifier()
        x, y = stripes(32)
        before = model.get_layer("stem_conv").kernel.numpy()
        model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[Unfreeze({1: "all"})])
        assert np.any(model.get_layer("stem_conv").kernel.numpy() != before)
    finally:
        keras.config.set_dtype_policy("float32")


def test_features_head_refuses():
    model = compiled(build_classifier(small_cnn(), 4, head="features", input_shape=(12, 12, 3)))
    x, y = stripes(8)
    with pytest.raises(ValueError, match="head='features', which freezes it for good"):
        model.fit(x, y, verbose=0, callbacks=[Unfreeze({0: "all"})])
    assert "make_train_function" not in vars(model)


@pytest.mark.parametrize(
    ("schedule", "error", "message"),
    [
        ({}, TypeError, "`schedule` must be a dict of moments"),
        ([1, 2], TypeError, "`schedule` must be a dict of moments"),
        ({1.5: "all"}, ValueError, "fraction of training"),
        ({0.5: True}, TypeError, "must be a number of last blocks"),
        ({0.5: None}, TypeError, "must be a number of last blocks"),
    ],
)
def test_bad_schedule(schedule, error, message):
    with pytest.raises(error, match=message):
        Unfreeze(schedule)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({5: "all"}, "an epoch of the planned training, 0 to 0. Received: schedule=5"),
        ({0: 99}, "`schedule` must open 1 to"),
        ({0: "stem_cnv"}, "Did you mean 'stem_conv'"),
    ],
)
def test_bad_schedule_for_this_training(schedule, message):
    model, (x, y) = classifier(), stripes(8)
    flags = [layer.trainable for layer in model.layers]
    with pytest.raises(ValueError, match=message):
        model.fit(x, y, verbose=0, callbacks=[Unfreeze(schedule)])
    assert [layer.trainable for layer in model.layers] == flags


def test_bad_batch_norm():
    with pytest.raises(ValueError, match="`batch_norm` must be one of 'frozen', 'affine', 'train'"):
        ko.transfer.Unfreeze({0: 1}, batch_norm="thawed")
