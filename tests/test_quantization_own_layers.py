"""Layers and models of the user's own: opened where `call` is a graph, else rounded inside."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import kerasopt as ko
from kerasopt.quantization import QuantizeAware, float_operations, quantize_aware
from kerasopt.quantization._fake_quant import fake_quantize_kernel
from tests.models import compiled, stripes

X, Y = stripes(64)
CLOSED = "a call that is no graph of layers and keras.ops, or another one in training"


class Block(layers.Layer):
    """A residual block with a weight of its own."""

    def __init__(self, filters, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.conv = layers.Conv2D(filters, 3, padding="same", use_bias=False, name="conv")
        self.norm = layers.BatchNormalization(momentum=0.8, name="norm")
        self.drop = layers.Dropout(0.1, name="drop")

    def build(self, shape):
        self.conv.build(shape)
        self.norm.build((*shape[:-1], self.filters))
        self.gamma = self.add_weight(shape=(self.filters,), initializer="ones", name="gamma")
        super().build(shape)

    def call(self, x, training=None):
        y = keras.ops.relu(self.norm(self.conv(x), training=training))
        if training:
            y = self.drop(y, training=training)
        return x + y * self.gamma


class Halved(Block):
    """Not the same in training."""

    def call(self, x, training=None):
        y = super().call(x, training=training)
        return y * 0.5 if training else y


class Penalized(Block):
    def call(self, x, training=None):
        y = super().call(x, training=training)
        self.add_loss(1e-3 * keras.ops.mean(keras.ops.square(y)))
        return y


class Counting(Block):
    def build(self, shape):
        super().build(shape)
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False, name="count")

    def call(self, x, training=None):
        self.count.assign_add(1.0)
        return super().call(x, training=training)


class Noisy(Block):
    def __init__(self, filters, **kwargs):
        super().__init__(filters, **kwargs)
        self.seed = keras.random.SeedGenerator(0)

    def call(self, x, training=None):
        noise = keras.random.normal((1, 1, 1, self.filters), seed=self.seed)
        return super().call(x, training=training) + 0.01 * noise


class Regularized(Block):
    def __init__(self, filters, **kwargs):
        super().__init__(filters, **kwargs)
        self.activity_regularizer = keras.regularizers.L2(1e-4)


class Raw(Block):
    """Calls TensorFlow, which takes no symbolic tensors of Keras."""

    def call(self, x, training=None):
        return x + tf.nn.relu(self.norm(self.conv(x), training=training)) * self.gamma


class RawNet(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**{"name": "raw_net", **kwargs})
        self.conv = layers.Conv2D(8, 3, strides=2, name="conv")
        self.norm = layers.BatchNormalization(momentum=0.8, name="norm")
        self.scores = layers.Dense(4, name="scores")

    def call(self, x, training=None):
        x = tf.nn.relu(self.norm(self.conv(x / 255.0), training=training))
        return self.scores(tf.reduce_mean(x, axis=(1, 2)))


class Branch(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**{"name": "branch", **kwargs})
        self.conv = layers.Conv2D(8, 3, strides=2, activation="relu", name="conv")

    def call(self, x):
        return self.conv(x)


class Positions(layers.Layer):
    """Adds to each token a vector for its place, which no input decides."""

    def __init__(self, length, width, **kwargs):
        super().__init__(**kwargs)
        self.length = length
        self.table = layers.Embedding(length, width, name="table")
        self.supports_masking = True

    def build(self, shape):
        self.table.build(None)
        super().build(shape)

    def call(self, x):
        return x + self.table(keras.ops.arange(self.length))


def net(*own):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, activation="relu", name="stem")(x / 255.0)
    for layer in own:
        x = layer(x)
    scores = layers.Dense(4, name="scores")(layers.GlobalAveragePooling2D(name="pool")(x))
    return keras.Model(inputs, scores)


def rounded(model, inside):
    """The outputs of a float model whose kernels are put onto their levels by hand."""
    before = model.get_weights()
    for layer in inside:
        axes = tuple(range(len(layer.kernel.shape) - 1))
        layer.kernel.assign(fake_quantize_kernel(tf.convert_to_tensor(layer.kernel), axes))
    found = keras.ops.convert_to_numpy(model(X))
    model.set_weights(before)
    return found


@pytest.mark.slow
def test_a_layer_of_layers_trains_in_place_and_equals_its_file():
    block = Block(8, name="block")
    model = compiled(net(block, Block(8, name="other")), optimizer=keras.optimizers.Adam(0.01))
    quantize = QuantizeAware(start=0.25)
    model.fit(X, Y, batch_size=16, epochs=12, verbose=0, callbacks=[quantize])
    aware = quantize.quantized_model
    assert quantize.float_operations == ()
    assert {id(v) for v in model.weights} <= {id(v) for v in aware.weights}
    assert np.all(block.gamma.numpy() != 1)
    assert "call" not in vars(block.norm)
    result = ko.export.to_tflite(aware, quantize="int8", verify=(X, Y))
    report = ko.export.compare_operations(aware, result.content, X, samples=8)
    assert report.faults() == []
    assert report.kernels == 4
    assert result.agreement >= 0.98


def test_what_is_inside_a_layer_of_layers_has_a_path():
    model = net(Block(8, name="block"), Block(8, name="other"))
    schemes = ko.quantization.resolve_scheme(model, {"block/conv": None})
    assert schemes["block/conv"] is None
    assert schemes["other/conv"].name == "int8"
    aware = quantize_aware(model, {"block/conv": None})
    assert [name for name, _ in float_operations(aware)] == ["block_conv"]
    assert [name for name, _ in float_operations(quantize_aware(model, {"^block$": None}))]


@pytest.mark.slow
def test_batch_normalization_inside_keeps_its_statistics_late():
    block = Block(8, name="block")
    model = compiled(net(block))
    statistics = []
    note = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: statistics.append(block.norm.moving_mean.numpy())
    )
    quantize = QuantizeAware(freeze_batch_norm=1, freeze_ranges=2)
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[quantize, note])
    assert np.any(statistics[0] != 0)
    np.testing.assert_array_equal(statistics[1], statistics[0])
    np.testing.assert_array_equal(statistics[2], statistics[0])


def test_the_opened_copy_saves_without_the_class_and_strips(tmp_path):
    model = net(Block(8, name="block"))
    aware = quantize_aware(model)
    aware(X, training=True)
    aware.save(tmp_path / "aware.keras")
    loaded = keras.models.load_model(tmp_path / "aware.keras")
    np.testing.assert_array_equal(loaded(X), aware(X))
    bare = ko.quantization.strip(loaded)
    assert bare.get_layer("conv").kernel.shape == (3, 3, 8, 8)
    other = net(Block(8, name="block"))
    other.set_weights([w + 0.01 for w in model.get_weights()])
    ko.quantization.load_float_weights(aware, other)
    np.testing.assert_allclose(ko.quantization.strip(aware)(X), other(X), rtol=1e-5, atol=1e-5)


def test_a_shared_layer_is_opened_where_it_is_called():
    block = Block(8, name="block")
    model = net(block, block)
    aware = quantize_aware(model)
    assert float_operations(aware) == ()
    bare = ko.quantization.strip(aware)
    np.testing.assert_allclose(bare(X), model(X), rtol=1e-5, atol=1e-5)
    assert len(bare.weights) == len(model.weights)


class Shifted(layers.Layer):
    def call(self, x, by):
        return x + by


def test_a_layer_is_another_graph_for_other_arguments():
    inputs = keras.Input((2000,))
    shift, by = Shifted(), np.zeros(2000, "float32")
    by[1000] = 1.0
    model = keras.Model(inputs, shift(shift(inputs, np.zeros(2000, "float32")), by))
    bare = ko.quantization.strip(quantize_aware(model))
    np.testing.assert_array_equal(bare(np.zeros((1, 2000)))[0], by)


def test_a_layer_that_knows_its_model():
    block = Block(8, name="block")
    model = net(block)
    vars(block)["around"] = model  # as one that Keras does not track
    assert float_operations(quantize_aware(model)) == ()


def test_a_subclassed_model_inside_is_opened():
    aware = quantize_aware(net(Branch()))
    assert float_operations(aware) == ()
    assert isinstance(aware.get_layer("conv"), ko.quantization.QuantizedLayer)


@pytest.mark.parametrize("kind", [Halved, Penalized, Counting, Noisy, Regularized, Raw])
def test_what_is_no_graph_stays_whole_with_rounded_kernels(kind):
    block = kind(8, name="block")
    model = net(block)
    graph = quantize_aware(model)
    assert float_operations(graph) == (("block", CLOSED),)
    assert isinstance(graph.get_layer("block"), ko.quantization.QuantizedLayer)
    if kind is Noisy:
        return
    ko.quantization.calibrate(graph, X)
    expected = rounded(model, [block.conv, model.get_layer("stem"), model.get_layer("scores")])
    np.testing.assert_allclose(graph(X), expected, atol=0.02)
    assert np.any(np.abs(expected - model(X)) > 1e-5)
    if kind is Counting:
        assert block.count.numpy() == 1  # by the call above, and not by any trace


@pytest.mark.slow
def test_losses_and_states_inside_a_whole_layer_live_on():
    penalized, counting = Penalized(8, name="penalized"), Counting(8, name="counting")
    model = compiled(net(penalized, counting))
    quantize = QuantizeAware()
    model.fit(X, Y, batch_size=32, epochs=2, verbose=0, callbacks=[quantize])
    assert counting.count.numpy() == 4
    assert len(quantize.quantized_model.losses) == 1
    assert np.any(penalized.norm.moving_mean.numpy() != 0)


def test_a_part_that_is_left_out_leaves_a_whole_layer_out():
    aware = quantize_aware(net(Raw(8, name="block")), {"block/conv": None})
    ((name, reason),) = [entry for entry in float_operations(aware) if entry[0] == "block"]
    assert (name, reason) == ("block", "left out by `layers` or `scheme`")
    assert isinstance(aware.get_layer("block"), Raw)


def test_a_weight_that_no_input_decides_trains_on_levels():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 8))
    own = Positions(6, 8, name="positions")
    x = layers.Dense(4, name="dense")(own(inputs))
    model = compiled(keras.Model(inputs, layers.GlobalAveragePooling1D()(x)))
    before = own.table.embeddings.numpy()
    quantize = QuantizeAware()
    x = np.random.default_rng(0).normal(size=(64, 6, 8))
    model.fit(x, Y, verbose=0, callbacks=[quantize])
    assert quantize.float_operations == (("positions", CLOSED),)
    assert np.any(own.table.embeddings.numpy() != before)


def test_masks_go_where_the_layer_sends_them():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(20, 8, mask_zero=True, name="table")(inputs)
    x = layers.GlobalAveragePooling1D(name="pool")(Positions(6, 8, name="positions")(x))
    aware = quantize_aware(keras.Model(inputs, x))
    assert "positions" in [name for name, _ in float_operations(aware)]


@pytest.mark.slow
def test_a_model_that_is_no_graph_trains_in_place():
    keras.utils.set_random_seed(0)
    model = RawNet()
    model(X[:1])
    compiled(model, optimizer=keras.optimizers.Adam(0.01))
    quantize = QuantizeAware()
    with pytest.warns(UserWarning, match=r"'raw_net', a RawNet, .*cannot be used as input"):
        model.fit(X, Y, batch_size=16, epochs=12, verbose=0, callbacks=[quantize])
    assert "call" not in vars(model)
    assert np.any(model.norm.moving_mean.numpy() != 0)
    assert quantize.float_operations == (("raw_net", CLOSED),)
    aware = quantize.quantized_model
    np.testing.assert_allclose(aware(X), rounded(model, [model.conv, model.scores]), atol=0.02)
    result = ko.export.to_tflite(aware, quantize="int8", verify=(X, Y))
    assert result.accuracy > 0.9
    assert result.agreement >= 0.98
    assert result.float_operations == quantize.float_operations


@pytest.mark.slow
def test_a_model_that_is_no_graph_as_a_file_with_int8_weights():
    keras.utils.set_random_seed(0)
    model = RawNet()
    model(X[:1])
    with pytest.warns(UserWarning, match="which the file of the scheme 'int8_weights' holds"):
        aware = quantize_aware(model, "int8_weights")
    result = ko.export.to_tflite(aware, quantize="dynamic", verify=X)
    assert result.relative_error < 0.05
