"""Masks by structure and scope, bit-equal to TF-MOT and to NumPy."""

import math
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import kerasopt as ko
from kerasopt.pruning import block_mask, erk_sparsity, m_by_n_mask, magnitude_mask
from kerasopt.pruning._schedules import tfmot_schedules
from kerasopt.pruning._scopes import joint_masks
from kerasopt.pruning._structures import parse_structure

# Few distinct values, so that ties are common.
WEIGHTS = st.one_of(st.floats(-2, 2, width=16), st.sampled_from([0.0, 0.5, -0.5]))
SPARSITY = st.floats(0.0, 0.99)


def kernels(min_dims, max_dims, max_side=9):
    shapes = hnp.array_shapes(min_dims=min_dims, max_dims=max_dims, max_side=max_side)
    return hnp.arrays(np.float32, shapes, elements=WEIGHTS)


def oracle(weights, sparsity, block=(1, 1), pooling="AVG", m_by_n=None):
    """The mask that TF-MOT 0.8.1 makes of these weights."""
    tfmot = tfmot_schedules()  # leaves `tf.keras` as it was
    from tensorflow_model_optimization.python.core.sparsity.keras import pruning_impl

    pruning = pruning_impl.Pruning(
        lambda: tf.constant(0, tf.int64),
        [],
        tfmot.ConstantSparsity(sparsity, 0),
        block,
        pooling,
        sparsity_m_by_n=m_by_n,
    )
    return pruning._maybe_update_block_mask(tf.constant(weights))[1].numpy()


@given(weights=kernels(1, 4, 6), sparsity=SPARSITY)
@settings(max_examples=40, deadline=None)
def test_element_mask_is_that_of_tfmot(weights, sparsity):
    np.testing.assert_array_equal(magnitude_mask(weights, sparsity), oracle(weights, sparsity))


@given(
    weights=kernels(2, 2, 12),
    sparsity=SPARSITY,
    block=st.tuples(st.integers(1, 5), st.integers(1, 5)).filter(lambda b: b != (1, 1)),
    pooling=st.sampled_from(["AVG", "MAX"]),
)
@settings(max_examples=50, deadline=None)
def test_block_mask_is_that_of_tfmot_also_where_it_does_not_divide(
    weights, sparsity, block, pooling
):
    # TF-MOT squeezes a single row or column of blocks away, and then fails.
    assume(all(side > size for side, size in zip(weights.shape, block, strict=True)))
    found = block_mask(weights, sparsity, block=block, pooling=pooling)
    np.testing.assert_array_equal(found, oracle(weights, sparsity, block, pooling))


@given(
    weights=kernels(2, 4).filter(lambda w: w.ndim != 3),
    m_by_n=st.sampled_from([(2, 4), (1, 4), (3, 4), (1, 2), (4, 8), (2, 3)]),
)
@settings(max_examples=40, deadline=None)
def test_m_by_n_mask_is_that_of_tfmot(weights, m_by_n):
    found = m_by_n_mask(weights, m=m_by_n[0], n=m_by_n[1])
    np.testing.assert_array_equal(found, oracle(weights, 0.5, m_by_n=m_by_n))


_ORACLE = """
import os, sys
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import numpy as np, tensorflow as tf, tf_keras, tensorflow_model_optimization as tfmot
layers, prune = tf_keras.layers, tfmot.sparsity.keras.prune_low_magnitude
schedule = tfmot.sparsity.keras.PolynomialDecay(0.1, 0.85, 2, 22, frequency=4)
kinds = {
    "element": {},
    "avg": {"block_size": (2, 3), "block_pooling_type": "AVG"},
    "max": {"block_size": (1, 4), "block_pooling_type": "MAX"},
    "2by4": {"sparsity_m_by_n": (2, 4)},
}
out = {}
for kind, options in kinds.items():
    tf_keras.utils.set_random_seed(1)
    inputs = tf_keras.Input((6, 6, 8))
    convolution = layers.Conv2D(8, 3)
    if "block_size" not in options:  # TF-MOT has no blocks in convolutions
        convolution = prune(convolution, schedule, **options)
    x = layers.Flatten()(convolution(inputs))
    x = prune(layers.Dense(12), schedule, **options)(x)
    model = tf_keras.Model(inputs, prune(layers.Dense(8), schedule, **options)(x))
    model.compile(tf_keras.optimizers.SGD(0.05), "mse")
    wrapped = [layer for layer in model.layers if hasattr(layer, "pruning_vars")]
    last = {}

    class Watch(tf_keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            for layer in wrapped:
                last[layer.name] = [v.numpy() for v in layer.pruning_vars[0][:2]]

        def on_train_batch_end(self, batch, logs=None):
            for layer in wrapped:
                mask, step = layer.pruning_vars[0][1].numpy(), int(layer.pruning_step.numpy())
                weights, before = last[layer.name]
                if schedule(tf.constant(step, tf.int64))[0] if kind != "2by4" else step == 1:
                    out[f"{kind}|{layer.name}|{step}|weights"] = weights
                    out[f"{kind}|{layer.name}|{step}|mask"] = mask
                else:
                    assert (mask == before).all()

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(48, 6, 6, 8)), rng.normal(size=(48, 8))
    update = tfmot.sparsity.keras.UpdatePruningStep()
    model.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=[update, Watch()])
np.savez(sys.argv[1], **out)
"""


@pytest.mark.slow
def test_masks_are_those_of_a_training_with_tfmot_on_tf_keras(tmp_path):
    """At every update of a schedule, from the weights that TF-MOT had there."""
    script, file = tmp_path / "oracle.py", tmp_path / "masks.npz"
    script.write_text(_ORACLE)
    done = subprocess.run([sys.executable, script, file], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    seen = np.load(file)
    schedule = tfmot_schedules().PolynomialDecay(0.1, 0.85, 2, 22, frequency=4)
    structures = {
        "element": parse_structure("element"),
        "avg": parse_structure("block:2x3", "AVG"),
        "max": parse_structure("block:1x4", "MAX"),
        "2by4": parse_structure("2:4"),
    }
    names = [key for key in seen if key.endswith("|mask")]
    assert len(names) == 6 * (3 + 2 + 2) + 3
    for key in names:
        kind, _, step, _ = key.split("|")
        weights = seen[key.replace("|mask", "|weights")]
        sparsity = schedule(tf.constant(int(step), tf.int64))[1]
        matrix = tf.reshape(weights, [-1, *weights.shape[-2:]])
        mask = tf.reshape(structures[kind].mask(matrix, float(sparsity)), weights.shape)
        np.testing.assert_array_equal(mask, seen[key], err_msg=key)


@given(weights=kernels(3, 3, 6), sparsity=SPARSITY)
@settings(max_examples=20, deadline=None)
def test_blocks_of_a_convolution_are_cut_position_by_position(weights, sparsity):
    mask = block_mask(weights, sparsity, block=(2, 3)).numpy()
    for position in mask:
        for i in range(0, mask.shape[1], 2):
            for j in range(0, mask.shape[2], 3):
                assert len(np.unique(position[i : i + 2, j : j + 3])) == 1


def test_graph_and_eager_masks_are_the_same(rng):
    for dtype in ("float32", "float16", "bfloat16", "float64"):
        weights = tf.cast(rng.normal(size=(7, 9)), dtype)
        eager = magnitude_mask(weights, 0.6)
        assert eager.dtype == dtype
        graph = tf.function(magnitude_mask)(weights, tf.constant(0.6))
        np.testing.assert_array_equal(tf.cast(eager, "float32"), tf.cast(graph, "float32"))
        assert 25 <= int(tf.reduce_sum(tf.cast(eager, "int32"))) <= 26 or dtype == "bfloat16"


@given(
    shapes=st.lists(hnp.array_shapes(min_dims=2, max_dims=4, max_side=30), min_size=1, max_size=6),
    sparsity=SPARSITY,
)
@settings(max_examples=40, deadline=None)
def test_erk_reaches_the_total_within_bounds(shapes, sparsity):
    found = erk_sparsity(shapes, sparsity)
    sizes = np.array([math.prod(shape) for shape in shapes])
    assert all(0.0 <= value < 1.0 for value in found)
    assert np.dot(found, sizes) == pytest.approx(sparsity * sizes.sum(), abs=1e-3)
    density = [
        (1 - s, sum(shape) / math.prod(shape)) for s, shape in zip(found, shapes, strict=True)
    ]
    scales = [d / ratio for d, ratio in density if d < 1.0]
    assert np.allclose(scales, scales[:1] or 0)


@given(arrays=st.lists(kernels(3, 3, 5), min_size=1, max_size=4), sparsity=SPARSITY)
@settings(max_examples=40, deadline=None)
def test_joint_masks_rank_all_weights_together(arrays, sparsity):
    masks = joint_masks([tf.constant(a) for a in arrays], sparsity, parse_structure("element"))
    everything = np.sort(np.abs(np.concatenate([a.ravel() for a in arrays])))[::-1]
    kept = np.float32(everything.size) * (np.float32(1.0) - np.float32(sparsity))
    limit = everything[int(max(np.round(kept), 1)) - 1]
    for weights, mask in zip(arrays, masks, strict=True):
        expected = np.abs(weights) >= min(limit, np.abs(weights).max())
        np.testing.assert_array_equal(mask, expected)
        assert mask.numpy().any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("row", r'`structure` must be one of "element", "block:RxC"'),
        ("block:4", r'`structure` must be one of "element", "block:RxC"'),
        ("block:0x4", "must have at least one row and one column"),
        ("4:4", "must have M zeros in every N weights, with 0 < M < N"),
        ("0:4", "Received: structure='0:4'"),
    ],
)
def test_structures_that_are_none(text, message):
    with pytest.raises(ValueError, match=message):
        ko.pruning.PruneLowMagnitude(structure=text)


def test_arguments_of_a_pattern():
    prune = ko.pruning.PruneLowMagnitude
    assert prune(structure="2:4").final_sparsity == 0.5
    assert prune(0.25, structure="1:4").final_sparsity == 0.25
    for sparsity in (0.8, 0.6):
        with pytest.raises(ValueError, match=r"`final_sparsity` must be 0.5 or left out"):
            prune(sparsity, structure="2:4")
    with pytest.raises(ValueError, match="gives every layer the same sparsity"):
        prune(structure="2:4", scope="global")
    with pytest.raises(ValueError, match="`block_pooling_type` must be one of 'AVG', 'MAX'"):
        prune(structure="block:1x4", block_pooling_type="MEAN")
    with pytest.raises(TypeError, match="`structure` must be a string"):
        prune(structure=(2, 4))


def test_einsum_kernels_are_cut_along_what_they_sum():
    from kerasopt.pruning._kernels import find_kernels

    model = keras.Sequential(
        [keras.Input((5, 8)), keras.layers.EinsumDense("abc,cde->abde", (5, 2, 6))]
    )
    (kernel,) = find_kernels(model, None, who="test")
    assert kernel.matrix_shape == (1, 8, 12)
    np.testing.assert_array_equal(kernel.restore(kernel.matrix()), kernel.variable)
    x = keras.Input((5, 8))
    attention = keras.layers.MultiHeadAttention(2, 6)
    model = keras.Model(x, attention(x, x))
    shapes = {k.path.split("/")[-1]: k.matrix_shape for k in find_kernels(model, None, who="test")}
    assert shapes == {
        "query": (1, 8, 12),
        "key": (1, 8, 12),
        "value": (1, 8, 12),
        "attention_output": (1, 12, 8),
    }
    for kernel in find_kernels(model, None, who="test"):
        np.testing.assert_array_equal(kernel.restore(kernel.matrix()), kernel.variable)
