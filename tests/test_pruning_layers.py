"""Which kernels are found and pruned: every kind of layer, wherever it sits."""

import keras
import numpy as np
import pytest

from kerasopt.pruning import ConstantSchedule, Masks, PruneLowMagnitude
from kerasopt.pruning._kernels import find_kernels
from tests.models import compiled, small_cnn, stripes

L = keras.layers


def functional(shape, layer, dtype="float32"):
    inputs = keras.Input(shape, dtype=dtype)
    return keras.Model(inputs, layer(inputs))


class Attend(keras.Model):
    """A subclassed model with a block of its own, a list of layers and a weight of its own."""

    def __init__(self):
        super().__init__(name="attend")
        self.stem = L.Dense(8, name="stem")
        self.blocks = [Block(name="block0"), Block(name="block1")]
        self.kernel = self.add_weight(shape=(8, 6), name="kernel")

    def call(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x @ self.kernel


class Block(L.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.parts = {"wide": L.Dense(16, name="wide"), "narrow": [L.Dense(8, name="narrow")]}

    def call(self, x):
        return self.parts["narrow"][0](self.parts["wide"](x))


class Named(L.Layer):
    """A layer that tells its kernels as TF-MOT's `PrunableLayer` does."""

    def build(self, shape):
        self.mixing = self.add_weight(shape=(shape[-1], 6), name="mixing")

    def call(self, x):
        return x @ self.mixing

    def get_prunable_weights(self):
        return [self.mixing]


def subclassed():
    model = Attend()
    model(np.zeros((1, 8), "float32"))
    return model


def attention(layer):
    inputs = keras.Input((6, 8))
    return keras.Model(inputs, layer(inputs, inputs))


def shared():
    dense = L.Dense(8, name="twice")
    inputs = keras.Input((8,))
    return keras.Model(inputs, dense(dense(inputs)))


def nested():
    inner = keras.Sequential([keras.Input((8,)), L.Dense(8, name="deep")], name="inner")
    middle = functional((8,), inner)
    middle.name = "middle"
    return functional((8,), middle)


PROJECTIONS = ["query", "key", "value", "attention_output"]
MODELS = {
    "dense": (lambda: functional((8,), L.Dense(6, name="a")), ["a"]),
    "einsum": (lambda: functional((5, 8), L.EinsumDense("abc,cd->abd", (5, 6), name="a")), ["a"]),
    "conv1d": (lambda: functional((9, 4), L.Conv1D(6, 3, name="a")), ["a"]),
    "conv2d": (lambda: functional((9, 9, 4), L.Conv2D(6, 3, groups=2, name="a")), ["a"]),
    "conv3d": (lambda: functional((5, 5, 5, 4), L.Conv3D(6, 3, name="a")), ["a"]),
    "conv1d_transpose": (lambda: functional((9, 4), L.Conv1DTranspose(6, 3, name="a")), ["a"]),
    "conv2d_transpose": (lambda: functional((9, 9, 4), L.Conv2DTranspose(6, 3, name="a")), ["a"]),
    "conv3d_transpose": (
        lambda: functional((5, 5, 5, 4), L.Conv3DTranspose(6, 3, name="a")),
        ["a"],
    ),
    "separable1d": (
        lambda: functional((9, 4), L.SeparableConv1D(6, 3, name="a")),
        ["a/depthwise_kernel", "a/pointwise_kernel"],
    ),
    "separable2d": (
        lambda: functional((9, 9, 4), L.SeparableConv2D(6, 3, use_bias=False, name="a")),
        ["a/depthwise_kernel", "a/pointwise_kernel"],
    ),
    "embedding": (lambda: functional((5,), L.Embedding(12, 4, name="a"), "int32"), ["a"]),
    "attention": (
        lambda: attention(L.MultiHeadAttention(2, 4, name="a")),
        [f"a/{part}" for part in PROJECTIONS],
    ),
    "grouped_attention": (
        lambda: attention(L.GroupQueryAttention(4, 4, 2, name="a")),
        [f"a/{part}" for part in PROJECTIONS],
    ),
    "rnn": (
        lambda: functional((5, 4), L.SimpleRNN(6, name="a")),
        [f"a/simple_rnn_cell/{part}" for part in ("kernel", "recurrent_kernel")],
    ),
    "lstm": (
        lambda: functional((5, 4), L.LSTM(6, name="a")),
        [f"a/lstm_cell/{part}" for part in ("kernel", "recurrent_kernel")],
    ),
    "cells": (
        lambda: functional(
            (5, 4), L.RNN([L.GRUCell(6, name="one"), L.LSTMCell(6, name="two")], name="a")
        ),
        [
            f"a/stacked_rnn_cells/{cell}/{part}"
            for cell in ("one", "two")
            for part in ("kernel", "recurrent_kernel")
        ],
    ),
    "conv_lstm": (
        lambda: functional((3, 6, 6, 2), L.ConvLSTM2D(4, 3, name="a")),
        [f"a/conv_lstm_cell/{part}" for part in ("kernel", "recurrent_kernel")],
    ),
    "bidirectional": (
        lambda: functional((5, 4), L.Bidirectional(L.GRU(6, name="gru"), name="a")),
        [
            f"a/{way}_gru/gru_cell/{part}"
            for way in ("forward", "backward")
            for part in ("kernel", "recurrent_kernel")
        ],
    ),
    "time_distributed": (
        lambda: functional((5, 8), L.TimeDistributed(L.Dense(6, name="each"), name="a")),
        ["a/each"],
    ),
    "shared": (shared, ["twice"]),
    "nested": (nested, ["middle/inner/deep"]),
    "subclassed": (
        subclassed,
        ["attend", "stem", "block0/wide", "block0/narrow", "block1/wide", "block1/narrow"],
    ),
    "named_by_itself": (lambda: functional((8,), Named(name="a")), ["a"]),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_kernel_is_pruned_and_nothing_else(name):
    make, paths = MODELS[name]
    model = make()
    before = {id(weight): np.array(weight) for weight in model.weights}
    masks = Masks(model, 0.5, schedule=ConstantSchedule())
    masks.update(0)
    assert set(masks.paths) == set(paths)
    kernels = find_kernels(model, None, who="test")
    pruned = {id(kernel.variable) for kernel in kernels}
    for kernel in kernels:
        assert kernel.variable.constraint is not None
        assert abs(kernel.zeros() - kernel.size / 2) <= 1 or "recurrent" in kernel.path
    for weight in model.weights:
        if id(weight) not in pruned:
            np.testing.assert_array_equal(weight, before[id(weight)])
            assert len(weight.shape) < 2 or "bias" in weight.path
    masks.release()
    assert all(weight.constraint is None for weight in model.weights)


def test_depthwise_convolutions_are_pruned_when_chosen():
    model = functional((9, 9, 4), L.DepthwiseConv2D(3, name="a"))
    with pytest.raises(ValueError, match=r"needs a layer with a kernel"):
        Masks(model, 0.5, total_steps=4)
    masks = Masks(model, 0.5, schedule=ConstantSchedule(), layers="^a$")
    masks.update(0)
    assert masks.sparsity == pytest.approx(0.5, abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "jit_compile"),
    [
        ("bidirectional", True),
        ("bidirectional", False),
        ("attention", True),
        ("separable2d", False),
        ("subclassed", True),
    ],
)
def test_zeros_hold_through_fit(name, jit_compile):
    model = MODELS[name][0]()
    shape = model.input_shape[1:] if hasattr(model, "input_shape") else (8,)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, *shape)).astype("float32")
    y = rng.normal(size=np.shape(model(x))).astype("float32")
    model.compile("adam", "mse", jit_compile=jit_compile)
    callback = PruneLowMagnitude(0.75, schedule=ConstantSchedule())
    model.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=[callback])
    for kernel in find_kernels(model, None, who="test"):
        assert kernel.zeros() == pytest.approx(0.75 * kernel.size, abs=1), kernel.path
    assert all(weight.constraint is None for weight in model.weights)


def test_a_regex_finds_what_is_inside_and_a_callable_what_keras_lists():
    model = MODELS["attention"][0]()
    paths = [k.path for k in find_kernels(model, "a/query|a/key", who="test")]
    assert paths == ["a/query", "a/key"]
    assert len(find_kernels(model, "^a$", who="test")) == 4
    chosen = find_kernels(model, lambda layer: isinstance(layer, L.MultiHeadAttention), who="test")
    assert len(chosen) == 4
    with pytest.raises(ValueError, match=r"which chose none of"):
        find_kernels(model, lambda layer: isinstance(layer, L.EinsumDense), who="test")


@pytest.mark.slow
def test_integer_kernels_are_left_out():
    model = functional((8,), L.Dense(6, name="a"))
    model.get_layer("a").quantize("int8")
    with pytest.raises(ValueError, match="needs a layer with a kernel"):
        find_kernels(model, None, who="test")


# Structures, scopes and targets on a model


def masks_of(**options):
    model = small_cnn()
    masks = Masks(model, options.pop("sparsity", 0.5), schedule=ConstantSchedule(), **options)
    masks.update(0)
    return model, masks, find_kernels(model, None, who="test")


def test_blocks():
    _, _, kernels = masks_of(structure="block:2x4", block_pooling_type="MAX", layers="block|logits")
    for kernel in kernels:
        if kernel.path == "stem_conv":
            assert kernel.zeros() == 0
            continue
        matrix = kernel.matrix().numpy()
        blocks = matrix.reshape(len(matrix), -1, 2, matrix.shape[2] // 4, 4)
        used = (blocks != 0).sum(axis=(2, 4))
        assert set(np.unique(used)) == {0, 8}
        assert np.mean(used == 0) == 0.5


def test_two_out_of_four():
    _, masks, kernels = masks_of(structure="2:4", sparsity=0.5)
    for kernel in kernels:
        matrix = kernel.matrix().numpy()
        if kernel.path == "stem_conv":  # three inputs: one of them goes
            assert np.all((matrix != 0).sum(axis=1) == 2)
        else:
            groups = matrix.reshape(len(matrix), -1, 4, matrix.shape[2])
            assert np.all((groups != 0).sum(axis=2) == 2)
    assert masks.update(50) is None


def test_a_pattern_that_does_not_fit():
    inputs = keras.Input((8, 8, 1))
    x = L.Conv2D(8, 3, name="stem")(inputs)
    model = keras.Model(inputs, L.Conv2D(8, 1, name="next")(x))
    with Masks(model, structure="2:4", total_steps=4) as masks:
        assert masks.paths == ("next",)
    with pytest.raises(
        ValueError,
        match=r"'2:4' must fit the layers: a kernel needs more than 2 inputs. "
        r"Received: 'stem' with 1",
    ):
        Masks(model, structure="2:4", layers=["stem", "next"], total_steps=4)


def test_global_scope_takes_where_weights_are_small():
    model = small_cnn()
    model.get_layer("block2_conv").kernel.assign(model.get_layer("block2_conv").kernel * 0.01)
    masks = Masks(model, 0.6, schedule=ConstantSchedule(), scope="global")
    masks.update(0)
    kernels = {kernel.path: kernel for kernel in find_kernels(model, None, who="test")}
    assert kernels["block2_conv"].zeros() > 0.7 * kernels["block2_conv"].size
    assert kernels["stem_conv"].zeros() < 0.1 * kernels["stem_conv"].size
    total = sum(kernel.size for kernel in kernels.values())
    assert abs(sum(k.zeros() for k in kernels.values()) - 0.6 * total) <= 1


def test_erk_scope_reaches_the_total():
    _, masks, kernels = masks_of(scope="erk", sparsity=0.7)
    assert masks.sparsity == pytest.approx(0.7, abs=len(kernels) / sum(k.size for k in kernels))
    share = {kernel.path: kernel.zeros() / kernel.size for kernel in kernels}
    assert share["block2_conv"] > share["stem_conv"] > share["logits"]


@pytest.mark.parametrize("scope", ["layer", "global", "erk"])
def test_targets_of_single_layers(scope):
    _, _, kernels = masks_of(targets={"logits": 0.0, "block1": 0.25, "block": 0.9}, scope=scope)
    share = {kernel.path: kernel.zeros() / kernel.size for kernel in kernels}
    assert share["logits"] == 0.0
    assert share["block1_project"] == 0.25
    assert share["block2_conv"] == pytest.approx(0.9, abs=1e-3)
    assert share["stem_conv"] == pytest.approx(0.5, abs=5e-3)


def test_targets_grow_along_their_own_curve():
    from kerasopt.pruning._schedules import tfmot_schedules

    for schedule in (None, tfmot_schedules().PolynomialDecay(0.0, 0.8, 0, 75, frequency=5)):
        model = small_cnn()
        masks = Masks(model, 0.8, targets={"logits": 0.4}, schedule=schedule, total_steps=100)
        kernel = model.get_layer("block2_conv").kernel
        head = model.get_layer("logits").kernel
        assert masks.update(20) is not None
        ratio = np.mean(np.array(head) == 0) / np.mean(np.array(kernel) == 0)
        assert ratio == pytest.approx(0.5, abs=0.05)
        masks.update(100)
        assert np.mean(np.array(head) == 0) == pytest.approx(0.4, abs=0.01)
        assert np.mean(np.array(kernel) == 0) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        ([("a", 0.5)], TypeError, "`targets` must be a dict from a regex"),
        ({"a": 1.0}, ValueError, r"`targets\['a'\]` must be a number in \[0, 1\)"),
        ({"a": "half"}, TypeError, r"`targets\['a'\]` must be a number"),
        ({"(": 0.5}, ValueError, "`targets` must hold valid regexes"),
    ],
)
def test_targets_that_are_none(targets, error, message):
    with pytest.raises(error, match=message):
        PruneLowMagnitude(targets=targets)


def test_targets_that_find_nothing_offer_the_nearest():
    with pytest.raises(ValueError, match=r"`targets` must choose at least one layer.*'logits'"):
        Masks(small_cnn(), targets={"logit_s": 0.5}, total_steps=4)


def test_targets_need_a_schedule_that_tells_its_end():
    from kerasopt.pruning._schedules import tfmot_schedules

    class Own(tfmot_schedules().PruningSchedule):
        def __call__(self, step):
            return step % 2 == 0, 0.5

        def get_config(self):
            return {}

    masks = Masks(small_cnn(), schedule=Own())
    assert masks.update(1) == 0.5
    assert masks.update(1) is None
    assert masks.update(2) == 0.5
    with pytest.raises(ValueError, match="need a schedule that tells its final sparsity"):
        Masks(small_cnn(), schedule=Own(), scope="erk")


@pytest.mark.slow
def test_file_and_sparsity_agree_within_one_weight_per_layer(tmp_path):
    import kerasopt as ko

    model = compiled(small_cnn())
    x, y = stripes(32)
    callback = PruneLowMagnitude(0.7)
    model.fit(x, y, epochs=2, batch_size=8, verbose=0, callbacks=[callback])
    model.save(tmp_path / "model.keras")
    exported = ko.export.to_tflite(model)
    wanted = {k.path: k.size * 0.7 for k in find_kernels(model, None, who="test")}
    for profile in (ko.profiling.profile(tmp_path / "model.keras"),):
        zeros = {row.name: row.zeros for row in profile.rows if row.name in wanted}
        assert zeros.keys() == wanted.keys()
        assert all(abs(zeros[name] - wanted[name]) <= 1 for name in wanted)
    rows = [row for row in ko.profiling.profile(exported.content).rows if row.zeros]
    assert len(rows) == len(wanted)
    assert sum(row.zeros for row in rows) == sum(zeros.values())
