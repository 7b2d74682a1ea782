"""Every row of the table of int8 rules: converted, run, and compared operation by operation."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import kerasopt as ko
from kerasopt.quantization._rules import function_name
from kerasopt.quantization._table import TABLE
from tests.int8_cases import AUGMENTATION, CASES, ISLANDS, NO_FILE
from tests.int8_files import chain

IMAGE, SIGNAL, VOLUME = (8, 8, 4), (10, 8), (4, 4, 4, 2)
VECTOR = np.array([0.1, -0.2, 0.3, 0.4], "float32")


def activations(*names):
    """Each activation behind a convolution of its own."""
    parts = [layers.Conv2D(4, 1, activation=name) for name in names]
    return branches(*parts, join=layers.Add())


def conv(filters=4, **options):
    return layers.Conv2D(filters, 3, padding="same", **options)


def norm():
    return layers.BatchNormalization(momentum=0.5)


def branches(*parts, join):
    return lambda x: join([part(x) for part in parts])


# name: (input shape, model, what stays float)
ROWS = {
    "convolutions": (
        IMAGE,
        chain(
            conv(groups=2, activation="relu"),
            layers.Conv2D(6, 3, dilation_rate=2, use_bias=False),
            norm(),
            layers.DepthwiseConv2D(3, depth_multiplier=2),
            norm(),
            layers.ReLU(6.0),
            layers.Conv2DTranspose(5, 3, strides=2, padding="same"),
            norm(),
            layers.ReLU(),
            layers.Dense(4),
        ),
        (),
    ),
    "one-dimensional": (
        SIGNAL,
        chain(
            layers.Conv1D(6, 3, padding="causal", dilation_rate=2),
            norm(),
            layers.ReLU(),
            layers.DepthwiseConv1D(3, depth_multiplier=2),
            layers.Conv1DTranspose(5, 3, strides=2),
            layers.MaxPooling1D(2),
            layers.AveragePooling1D(2),
            layers.SeparableConv1D(4, 2, use_bias=False),
            layers.UpSampling1D(2),
            layers.ZeroPadding1D(1),
            layers.Cropping1D(1),
            layers.GlobalAveragePooling1D(),
        ),
        (),
    ),
    "dense": (
        SIGNAL,
        chain(
            layers.Dense(6, activation="gelu"),
            layers.EinsumDense("abc,cde->abde", output_shape=(None, 3, 4), bias_axes="de"),
            layers.EinsumDense("abcd,cde->abe", output_shape=(None, 6), bias_axes="e"),
            layers.TimeDistributed(layers.Dense(5, activation="tanh")),
            layers.Reshape((10, 5)),
            layers.Flatten(),
            layers.Dense(6),
            norm(),
            layers.ReLU(),
            layers.RepeatVector(3),
        ),
        (),
    ),
    "separable": (
        IMAGE,
        chain(
            layers.SeparableConv2D(6, 3, use_bias=False, padding="same"),
            norm(),
            layers.ReLU(),
            layers.SeparableConv2D(4, 3, strides=2, activation="silu"),
        ),
        (),
    ),
    "affine maps": (
        IMAGE,
        chain(
            layers.Rescaling(1 / 2, 0.3),
            layers.Normalization(mean=VECTOR, variance=np.abs(VECTOR)),
            layers.MaxPooling2D(1),
            norm(),
            layers.ReLU(),
            layers.Reshape((64, 4)),
            norm(),
        ),
        (),
    ),
    "activations": (
        IMAGE,
        chain(
            activations("silu", "hard_silu", "hard_sigmoid", "sigmoid", "tanh", "softmax"),
            activations("exponential", "hard_tanh", "leaky_relu", "tanh_shrink", "relu6"),
            branches(
                chain(layers.Conv2D(4, 1), layers.LeakyReLU()),
                chain(layers.Conv2D(4, 1), layers.ReLU(negative_slope=0.1)),
                chain(
                    layers.Conv2D(4, 1),
                    layers.PReLU(shared_axes=(1, 2), alpha_initializer="uniform"),
                ),
                chain(layers.Conv2D(4, 1), layers.ReLU(3.0)),
                join=layers.Add(),
            ),
            layers.Softmax(),
            layers.Conv2D(4, 1, activation="log_softmax"),
        ),
        (),
    ),
    "sums and products": (
        IMAGE,
        chain(
            branches(conv(), conv(activation="relu"), conv(), join=layers.Add()),
            branches(conv(), conv(), conv(), join=layers.Multiply()),
            layers.ReLU(),
            branches(conv(), conv(), join=layers.Subtract()),
            branches(conv(), conv(), conv(), join=layers.Average()),
            branches(conv(), conv(), join=layers.Maximum()),
            branches(conv(), conv(), join=layers.Minimum()),
        ),
        (),
    ),
    "concatenations": (
        IMAGE,
        chain(
            branches(
                conv(),
                conv(activation="sigmoid"),
                layers.AveragePooling2D(3, 1, padding="same"),
                join=layers.Concatenate(),
            ),
            conv(),
            branches(conv(), conv(activation="relu"), join=layers.Concatenate()),
        ),
        (),
    ),
    "pooling": (
        IMAGE,
        chain(
            layers.ZeroPadding2D(2),
            conv(),
            layers.AveragePooling2D(3, 2, padding="same"),
            layers.UpSampling2D(2),
            layers.MaxPooling2D(2, 1),
            layers.Cropping2D(1),
            layers.AveragePooling2D(2),
            branches(
                layers.GlobalAveragePooling2D(),
                layers.GlobalMaxPooling2D(),
                join=layers.Concatenate(),
            ),
        ),
        (),
    ),
    "resizing": (
        IMAGE,
        chain(
            conv(),
            layers.UpSampling2D(2, interpolation="bilinear"),
            conv(),
            layers.Resizing(12, 12),
            layers.Resizing(6, 6, interpolation="nearest"),
            layers.CenterCrop(4, 4),
            layers.Permute((2, 1, 3)),
        ),
        (),
    ),
    "operators": (
        IMAGE,
        chain(
            conv(),
            lambda x: (3.0 - x * 2.5 + 1.0) / 6.0,
            lambda x: -x + ops.square(x) - (x * 0.7) ** 2,
            lambda x: ops.multiply(VECTOR, x) + VECTOR,
            lambda x: ops.clip(x, -1, 1),
            lambda x: ops.concatenate(ops.split(x, 2, axis=-1)[::-1], axis=-1),
            conv(),
            branches(conv(), conv(), join=lambda pair: ops.maximum(*pair)),
            branches(conv(), conv(), join=lambda pair: ops.minimum(*pair)),
            branches(conv(), conv(), join=lambda pair: ops.where(pair[0] > pair[1], *pair)),
        ),
        (),
    ),
    "more operators": (
        IMAGE,
        chain(
            lambda x: ops.exp(ops.flip(x, axis=1) * 0.5),
            lambda x: ops.transpose(ops.reshape(x[:, 1:, ::2], (-1, 28, 4)), (0, 2, 1)),
            lambda x: ops.matmul(x, ops.swapaxes(x, 1, 2)),
            lambda x: ops.einsum("abc,abd->acd", x, x),
            lambda x: ops.stack([ops.sum(x, axis=1), ops.mean(x * 0.5, 1), ops.max(x, 1)], axis=1),
            lambda x: ops.squeeze(ops.expand_dims(ops.absolute(x), -1), -1),
            lambda x: ops.repeat(ops.tile(ops.moveaxis(x, 1, 2), (1, 2, 1)), 2, axis=2),
        ),
        (),
    ),
    "normalizations": (
        IMAGE,
        chain(
            layers.Conv2D(8, 1),
            layers.LayerNormalization(),
            layers.Conv2D(8, 1),
            layers.GroupNormalization(4),
            layers.Conv2D(4, 1),
            layers.Reshape((64, 4)),
            layers.RMSNormalization(),
        ),
        (),
    ),
    "attention": (
        SIGNAL,
        chain(
            lambda x: layers.MultiHeadAttention(2, 4, dropout=0.1)(x, x, use_causal_mask=True),
            lambda x: layers.GroupQueryAttention(4, 4, 2)(x, x),
            branches(layers.Dense(4), layers.Dense(4), join=layers.Attention()),
            branches(layers.Dense(4), layers.Dense(4), join=layers.Dot((2, 2))),
        ),
        (),
    ),
    "noise": (
        SIGNAL,
        chain(
            layers.Dropout(0.1),
            layers.SpatialDropout1D(0.1),
            layers.GaussianNoise(0.1),
            layers.GaussianDropout(0.1),
            layers.AlphaDropout(0.1),
            layers.ActivityRegularization(0.1),
            layers.Identity(),
            layers.Dense(3),
        ),
        (),
    ),
    "islands": (
        IMAGE,
        chain(
            conv(),
            layers.ELU(),
            conv(),
            layers.Activation("softplus", name="soft"),
            conv(),
            layers.Activation("soft_shrink", name="shrink"),
            conv(),
            layers.AdaptiveAveragePooling2D(3, name="adaptive"),
            layers.UnitNormalization(name="unit"),
            conv(activation="mish", name="mish"),
        ),
        ("elu", "soft", "shrink", "adaptive", "unit", "mish"),
    ),
    "recurrent": (
        SIGNAL,
        chain(
            layers.Bidirectional(layers.LSTM(4, return_sequences=True), name="both"),
            layers.GRU(4, return_sequences=True, name="gru"),
            layers.Dense(3),
            layers.SimpleRNN(3, name="simple"),
        ),
        ("both", "gru", "simple"),
    ),
    "volumes": (
        VOLUME,
        chain(
            layers.ZeroPadding3D(1),
            layers.Cropping3D(1),
            layers.UpSampling3D(2),
            layers.Conv3D(3, 2, name="conv3d"),
            branches(
                layers.GlobalAveragePooling3D(),
                layers.GlobalMaxPooling3D(),
                join=layers.Concatenate(),
            ),
        ),
        ("conv3d",),
    ),
}
QUICK = ("sums and products",)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ROWS],
)
def test_the_file_computes_what_the_model_computes(name, tmp_path):
    shape, build, islands = ROWS[name]
    keras.utils.set_random_seed(0)
    inputs = keras.Input(shape, name="image")
    model = ko.quantization.quantize_aware(keras.Model(inputs, build(inputs)))
    x = np.random.default_rng(0).normal(size=(32, *shape)).astype("float32")
    for _ in range(2):
        model(x, training=True)
    named = tuple(
        dict.fromkeys(n.split(" ")[0] for n, _ in ko.quantization.float_operations(model))
    )
    assert tuple(n for n in named if not n.startswith("elu")) == tuple(
        n for n in islands if n != "elu"
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x, training=False), model(x, training=False))
    file = ko.export.to_tflite(loaded, quantize="int8")
    report = ko.export.compare_operations(loaded, file.content, x, samples=16)
    assert report.faults() == []
    assert len(report.operations) >= 2
    if not islands:
        assert file.operators.count("DEQUANTIZE") == 1


# In the table with a rule that is another's.
NOT_RUN = (
    "GroupedQueryAttention GroupQueryAttention average_pool max_pool take cast broadcast_to ravel "
    "identity stop_gradient convert_to_tensor linear GlobalMaxPooling1D AdaptiveMaxPooling1D "
    "AdaptiveMaxPooling2D SpatialDropout2D SpatialDropout3D StochasticDepth LayerScale divide "
    "Embedding CustomScaleLayer"
)


def names_of(op):
    inside = op.layer if isinstance(op, layers.TimeDistributed) else op
    yield type(op).__name__
    if not isinstance(op, keras.Layer):
        yield function_name(type(op).__name__)
    if getattr(inside, "activation", None) is not None:
        yield inside.activation.__name__


def test_every_row_of_the_table_has_a_model():
    seen = set()
    for shape, build, _ in (*ROWS.values(), *CASES.values(), *ISLANDS.values()):
        inputs = keras.Input(shape)
        model = keras.Model(inputs, build(inputs))
        seen.update(name for op in model.operations for name in names_of(op))
    listed = {name for row in TABLE for name in f"{row.layers} {row.functions}".split()}
    assert listed - seen - {*NOT_RUN.split(), *AUGMENTATION, *NO_FILE} == set()
