"""The report on Keras models: numbers counted by hand."""

import json

import keras
import numpy as np
import pytest

import kerasopt as ko
from kerasopt.profiling import LayerProfile, Profile, profile

layers = keras.layers


def rows(model):
    return {row.name: row for row in profile(model).rows}


@pytest.fixture(scope="module")
def model():
    """8x8x3 -> conv 3x3 stride 2 -> depthwise 3x3 -> pool -> dense."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, strides=2, padding="same", name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.DepthwiseConv2D(3, padding="same", name="depthwise", use_bias=False),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(5, name="dense"),
        ],
        name="tiny",
    )
    kernel = np.arange(3 * 3 * 3 * 4, dtype="float32").reshape(3, 3, 3, 4) % 7  # 0..6
    model.get_layer("conv").set_weights([kernel, np.zeros(4)])
    return model


def test_rows_counted_by_hand(model):
    report = profile(model)
    assert [row.name for row in report.rows] == ["conv", "bn", "depthwise", "pool", "dense"]
    conv, bn, depthwise, pool, dense = report.rows
    assert conv == LayerProfile(
        name="conv",
        kind="Conv2D",
        output_shape=(None, 4, 4, 4),
        dtype="float32",
        parameters=108 + 4,
        kernel_parameters=108,
        zeros=16,  # 0, 7, ..., 105
        distinct=7,
        num_bits=32,
        bytes=112 * 4,
        macs=4 * 4 * 4 * 27,
        activation_bytes=4 * 4 * 4 * 4,
        live_bytes=(8 * 8 * 3 + 4 * 4 * 4) * 4,
    )
    assert conv.sparsity == pytest.approx(16 / 108)
    assert (bn.parameters, bn.kernel_parameters, bn.zeros, bn.macs) == (16, 0, 0, 0)
    assert (bn.distinct, bn.sparsity) == (0, 0.0)
    assert (depthwise.parameters, depthwise.macs) == (36, 4 * 4 * 4 * 9)
    assert (pool.parameters, pool.bytes, pool.num_bits, pool.macs) == (0, 0, 0, 0)
    assert (dense.parameters, dense.macs, dense.output_shape) == (25, 20, (None, 5))


def test_totals_are_the_sums(model):
    report = profile(model)
    assert report.source == "tiny"
    assert report.parameters == model.count_params() == 112 + 16 + 36 + 25
    assert report.kernel_parameters == 108 + 36 + 20
    assert report.zeros == 16
    assert report.sparsity == pytest.approx(16 / 164)
    assert report.bytes == 4 * report.parameters
    assert report.macs == 1728 + 576 + 20
    assert report.file_bytes is None
    assert report.notes == ()


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (layers.Conv1D(4, 3), (10, 2), 8 * 4 * 3 * 2),
        (layers.Conv3D(2, 2), (4, 4, 4, 3), 27 * 2 * 8 * 3),
        (layers.Conv2D(4, 3, groups=2), (6, 6, 4), 16 * 4 * 9 * 2),
        (layers.Conv2D(2, 3, dilation_rate=2), (9, 9, 2), 25 * 2 * 9 * 2),
        (layers.DepthwiseConv2D(3, depth_multiplier=2), (6, 6, 3), 16 * 6 * 9),
        (layers.SeparableConv2D(5, 3), (6, 6, 3), 16 * 3 * 9 + 16 * 5 * 3),
        (layers.Conv2DTranspose(4, 3, strides=2), (5, 5, 2), 25 * 2 * 9 * 4),
        (layers.Dense(7), (4, 3), 4 * 3 * 7),
        (layers.EinsumDense("abc,cd->abd", (4, 7)), (4, 3), 4 * 3 * 7),
        (layers.EinsumDense("...x,xy->...y", 7), (4, 3), 4 * 3 * 7),
        (layers.MultiHeadAttention(2, 4), None, None),
        (layers.MaxPooling2D(), (4, 4, 2), 0),
        # each step multiplies the input and the state, for each gate
        (layers.LSTM(8), (20, 3), 20 * 4 * (3 * 8 + 8 * 8)),
        (layers.LSTM(8, unroll=True), (5, 3), 5 * 4 * (3 * 8 + 8 * 8)),
        (layers.LSTM(8), (None, 3), None),
        (layers.GRU(8), (20, 3), 20 * 3 * (3 * 8 + 8 * 8)),
        (layers.SimpleRNN(8), (20, 3), 20 * (3 * 8 + 8 * 8)),
        (layers.Bidirectional(layers.LSTM(8)), (20, 3), 2 * 20 * 4 * (3 * 8 + 8 * 8)),
        (layers.TimeDistributed(layers.Dense(5)), (20, 3), 20 * 3 * 5),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, keras.Layer) else "",
)
def test_macs_of_a_layer(layer, shape, macs):
    if isinstance(layer, layers.MultiHeadAttention):
        query = keras.Input((6, 8))
        single = keras.Model(query, layer(query, query))
        # three projections and the output one, then scores and weighted sum
        macs = 4 * 6 * 8 * 8 + 2 * 2 * 6 * 6 * 4
    else:
        single = keras.Sequential([keras.Input(shape), layer])
    assert profile(single).rows[0].macs == macs


def test_nested_models_are_opened():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="a")], name="inner")
    model = keras.Sequential([keras.Input((4,)), inner, layers.Dense(2, name="b")])
    report = rows(model)
    assert list(report) == ["inner/a", "b"]
    assert (report["inner/a"].macs, report["b"].macs) == (12, 6)


def test_a_shared_layer_is_stored_once_and_computed_twice():
    left, right = keras.Input((4,)), keras.Input((4,))
    dense = layers.Dense(3, name="shared")
    model = keras.Model([left, right], layers.Add()([dense(left), dense(right)]))
    report = profile(model)
    assert report.parameters == 15
    assert report.macs == 2 * 12


def test_shared_variables_are_counted_once():
    class Tied(keras.Layer):
        def __init__(self, other, **kwargs):
            super().__init__(**kwargs)
            self.kernel = other.kernel

        def call(self, x):
            return keras.ops.matmul(x, keras.ops.transpose(self.kernel))

    inputs = keras.Input((4,))
    dense = layers.Dense(3, use_bias=False)
    hidden = dense(inputs)
    report = profile(keras.Model(inputs, Tied(dense, name="tied")(hidden)))
    assert report.parameters == 12
    assert [row.macs for row in report.rows] == [12, 12]


def test_operations_outside_of_layers_have_their_own_row():
    inputs = keras.Input((4, 5))
    model = keras.Model(inputs, keras.ops.matmul(inputs, keras.ops.transpose(inputs, (0, 2, 1))))
    report = rows(model)
    assert report["(outside of layers)"].macs == 4 * 4 * 5


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = layers.Dense(3, name="hidden")
        self.scale = self.add_weight(shape=(3, 2), name="scale")

    def call(self, x):
        return self.hidden(x) @ self.scale


def test_subclassed_model():
    model = Subclassed()
    model(np.zeros((2, 4), "float32"))
    report = rows(model)
    assert (report["hidden"].parameters, report["hidden"].macs) == (15, 12)
    outside = report["(outside of layers)"]
    assert (outside.parameters, outside.macs) == (6, 6)


def test_unknown_sizes_are_noted():
    model = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(2, 3, name="conv")])
    report = profile(model)
    assert report.rows[0].output_shape == (None, None, None, 2)
    assert report.rows[0].macs is None
    assert report.macs == 0
    assert "leaves open" in report.notes[0]
    assert "?" in str(report)


def test_fixed_batch_counts_for_one_image():
    model = keras.Sequential([keras.Input(batch_shape=(4, 6)), layers.Dense(2)])
    assert profile(model).macs == 12


def test_the_model_is_left_as_it_was(model):
    before = {name: set(vars(model.get_layer(name))) for name in ("conv", "dense")}
    profile(model)
    assert {name: set(vars(model.get_layer(name))) for name in before} == before
    dense = model.get_layer("dense")
    twin = type(dense).call.__get__(dense)
    dense.call = twin
    try:
        profile(model)
        assert vars(dense)["call"] is twin
    finally:
        del dense.call


def test_half_precision_weights():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, dtype="bfloat16")])
    report = profile(model)
    assert (report.rows[0].num_bits, report.bytes) == (16, 30)


def test_augmentation_is_one_row_without_numbers():
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), ko.augmentation.basic(), layers.Conv2D(2, 3, name="conv")]
    )
    report = rows(model)
    assert list(report) == ["augmentation", "conv"]
    assert (report["augmentation"].macs, report["augmentation"].parameters) == (0, 0)


def test_keras_file(model, tmp_path):
    path = tmp_path / "tiny.keras"
    model.save(path)
    report = profile(path)
    assert report.rows == profile(model).rows
    assert (report.source, report.file_bytes) == (str(path), path.stat().st_size)
    assert f"File: {path.stat().st_size:,} bytes." in str(report)


def test_to_dict_is_json(model):
    report = profile(model)
    restored = json.loads(json.dumps(report.to_dict()))
    assert restored["parameters"] == report.parameters
    assert restored["rows"][0]["output_shape"] == [None, 4, 4, 4]
    assert restored["rows"][0]["sparsity"] == pytest.approx(16 / 108)


def test_table_is_aligned(model):
    lines = str(profile(model)).splitlines()
    assert lines[0] == "tiny"
    header = next(line for line in lines if "params" in line)
    conv = next(line for line in lines if line.lstrip().startswith("conv"))
    assert (
        " ".join(conv.split()) == "conv Conv2D ?×4×4×4 float32 112 16 14.8% 7 32 0.4 0.00 0.2 1.0"
    )
    assert header.index("params") + len("params") == conv.index("112") + len("112")
    assert " ".join(lines[-1].split()) == "total 189 16 9.8% 0.7 0.00 1.0"


def test_empty_profile_has_no_sparsity():
    report = Profile("nothing", ())
    assert (report.sparsity, report.parameters, report.macs) == (0.0, 0, 0)
    assert "total" in report.table()


def test_model_must_be_built():
    with pytest.raises(
        ValueError, match=r"must be a built model\. Received: 'tiny' without weights"
    ):
        profile(keras.Sequential([layers.Dense(2)], name="tiny"))


@pytest.mark.parametrize("value", [None, 3, [1], layers.Dense(2)])
def test_argument_must_be_a_model_or_a_file(value):
    with pytest.raises(TypeError, match=r"`model_or_tflite` must be a Keras 3 model, the path"):
        profile(value)


@pytest.mark.parametrize("name", ["missing.keras", "missing.tflite"])
def test_file_must_exist(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"Received: '.*{name}'"):
        profile(tmp_path / name)


@pytest.mark.slow
def test_efficientnet_lite0(shared):
    report = profile(shared / "weights" / "efficientnet_lite0_imagenet.keras")
    statistics = sum(r.parameters // 2 for r in report.rows if r.kind == "BatchNormalization")
    assert report.parameters - statistics == 4_652_008
    assert 385e6 <= report.macs <= 410e6
