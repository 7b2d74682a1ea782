"""Losses, maps, kinds of outputs and photos of distillation, against NumPy and TensorFlow."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasopt.distillation import attention_loss, dist_loss, kl_loss, mse_loss
from kerasopt.distillation._class_map import ClassMap
from kerasopt.distillation._outputs import as_logits, output_kind
from kerasopt.distillation._photos import find_photo, resize
from kerasopt.distillation._schedule import Schedule
from kerasopt.distillation._targets import _keys
from kerasopt.training import Timeline


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def numpy_kl(t, s, temperature):
    p, q = softmax(t / temperature), softmax(s / temperature)
    return temperature**2 * np.mean(np.sum(p * np.log(p / q), -1))


def numpy_mse(t, s, temperature):
    return np.mean((t - s) ** 2)


def numpy_dist(t, s, temperature):
    p, q = softmax(t / temperature), softmax(s / temperature)
    between = np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(p, q, strict=True)])
    within = np.mean([np.corrcoef(*pair)[0, 1] for pair in zip(p.T, q.T, strict=True)])
    return temperature**2 * (2 - between - within)


ORACLES = {
    "kl": (kl_loss, numpy_kl),
    "mse": (lambda t, s, _: mse_loss(t, s), numpy_mse),
    "dist": (dist_loss, numpy_dist),
}


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("name", ORACLES)
def test_a_loss_is_its_formula_and_its_gradient_a_numerical_one(name, temperature, rng):
    ours, formula = ORACLES[name]
    t, s = rng.normal(0, 2, (2, 6, 5))
    student = tf.Variable(s, dtype=tf.float32)
    with tf.GradientTape() as tape:
        loss = ours(t, student, temperature)
    assert loss.dtype == "float32"
    np.testing.assert_allclose(loss, formula(t, s, temperature), rtol=1e-5)
    numerical = np.zeros_like(s)
    for place in np.ndindex(s.shape):
        step = np.zeros_like(s)
        step[place] = 1e-5
        sides = [formula(t, s + sign * step, temperature) for sign in (1, -1)]
        numerical[place] = (sides[0] - sides[1]) / 2e-5
    np.testing.assert_allclose(tape.gradient(loss, student), numerical, atol=2e-6, rtol=1e-4)


def test_attention_is_its_formula(rng):
    t, s = rng.normal(size=(3, 4, 5, 7)), rng.normal(size=(3, 4, 5, 2))

    def normed(features):
        flat = np.mean(features**2, -1).reshape(3, -1)
        return flat / np.linalg.norm(flat, axis=-1, keepdims=True)

    expected = np.mean(np.sum((normed(t) - normed(s)) ** 2, -1))
    np.testing.assert_allclose(attention_loss(t, s), expected, rtol=1e-5)


@given(seed=st.integers(0, 10_000), temperature=st.floats(0.5, 20))
@settings(max_examples=15, deadline=None)
def test_losses_of_the_same_are_zero_and_never_negative(seed, temperature):
    t, s = np.random.default_rng(seed).normal(0, 3, (2, 4, 3)).astype("float32")
    for loss, _ in ORACLES.values():
        assert abs(float(loss(t, t, temperature))) < 1e-4 * temperature**2
        assert float(loss(t, s, temperature)) > -1e-4
        shifted = s + 5.0  # a softmax does not see a constant
        if loss in (kl_loss, dist_loss):
            same = float(loss(t, s, temperature)), float(loss(t, shifted, temperature))
            assert same[0] == pytest.approx(same[1], rel=1e-3, abs=1e-4)


def test_losses_of_a_constant_student_have_a_gradient():
    student = tf.Variable(tf.zeros([4, 3]))
    for loss in (kl_loss, dist_loss):
        with tf.GradientTape() as tape:
            value = loss(tf.eye(4, 3), student, 2.0)
        assert np.isfinite(tape.gradient(value, student)).all()
    features = tf.Variable(tf.zeros([2, 3, 3, 4]))
    with tf.GradientTape() as tape:
        value = attention_loss(tf.ones([2, 3, 3, 4]), features)
    assert np.isfinite(tape.gradient(value, features)).all()


# Classes


def test_merged_classes_add_up(rng):
    logits = rng.normal(size=(5, 6)).astype("float32")
    p = softmax(logits)
    found = ClassMap([[0, 3], 1, None, (2, 4, 5)])
    found.check(6, 4, "teacher")
    merged = softmax(np.asarray(found.of_teacher(logits)))
    expected = np.stack([p[:, 0] + p[:, 3], p[:, 1], p[:, 2] + p[:, 4] + p[:, 5]], 1)
    np.testing.assert_allclose(merged, expected / expected.sum(1, keepdims=True), rtol=1e-5)
    student = rng.normal(size=(5, 4)).astype("float32")
    np.testing.assert_array_equal(found.of_student(student), student[:, [0, 1, 3]])


def test_a_dict_and_a_list_are_the_same_map(rng):
    logits = rng.normal(size=(5, 6)).astype("float32")
    one, other = ClassMap({2: 5, 0: 1}), ClassMap([1, None, 5])
    one.check(6, 3, "teacher")
    np.testing.assert_array_equal(one.of_teacher(logits), logits[:, [5, 1]])
    np.testing.assert_array_equal(one.of_student(logits[:, :3]), logits[:, [2, 0]])
    np.testing.assert_array_equal(other.of_teacher(logits), logits[:, [1, 5]])


@pytest.mark.parametrize(
    ("class_map", "message"),
    [
        ([0, 1], r"an entry for each of the 3 classes.*Received: class_map of length 2"),
        ({0: 1, 3: 2}, "must name classes of the student, 0 to 2. Received: class_map with 3"),
        ([0, 1, 6], "classes of the teacher, 0 to 5. Received: class_map with 6"),
        (None, "6 classes of the teacher 'big' and 3 of the student"),
    ],
)
def test_maps_that_do_not_fit(class_map, message):
    with pytest.raises(ValueError, match=message):
        ClassMap(class_map).check(6, 3, "big")


@pytest.mark.parametrize(
    ("class_map", "error", "message"),
    [
        ([0, 1, 0], ValueError, r"must be a map.*teacher's class 0 for \[0, 2\]"),
        ([0, "rose"], TypeError, "`class_map` must give.*Received: class_map with 1: 'rose'"),
        ([0, []], TypeError, "Received: class_map with 1"),
        ({"rose": 0, 1: 2}, TypeError, "Received: class_map with 'rose'"),
        (7, TypeError, "Received: class_map=7"),
        ([0, None], ValueError, "at least two classes"),
    ],
)
def test_maps_that_are_none(class_map, error, message):
    with pytest.raises(error, match=message):
        ClassMap(class_map)


# Outputs


def ends_in(*layers):
    return keras.Sequential([keras.Input((4,)), *layers], name="net")


NET_TAIL = {
    "dense": ([keras.layers.Dense(3)], "logits"),
    "softmax": ([keras.layers.Dense(3, activation="softmax")], "probabilities"),
    "layer": ([keras.layers.Dense(3), keras.layers.Softmax()], "probabilities"),
    "activation": ([keras.layers.Dense(3), keras.layers.Activation("softmax")], "probabilities"),
    "linear": ([keras.layers.Dense(3), keras.layers.Activation("linear")], "logits"),
    "reshaped": (
        [keras.layers.Dense(3, activation="softmax"), keras.layers.Reshape((3,))],
        "probabilities",
    ),
    "log": ([keras.layers.Dense(3, activation="log_softmax")], "logits"),
    "binary": ([keras.layers.Dense(1, activation="sigmoid")], "probabilities"),
    "nested": ([ends_in(keras.layers.Dense(3, activation="softmax"))], "probabilities"),
}


@pytest.mark.parametrize("name", NET_TAIL)
def test_outputs_are_recognized(name):
    layers, kind = NET_TAIL[name]
    assert output_kind(ends_in(*layers), None, "teacher_outputs") == kind
    assert output_kind(ends_in(*layers), "logits", "teacher_outputs") == "logits"


def test_operations_are_recognized_too():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.ops.softmax(keras.layers.Dense(3)(inputs)))
    assert output_kind(model, None, "teacher_outputs") == "probabilities"


class _Subclassed(keras.Model):
    def call(self, inputs):
        return inputs


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (ends_in(keras.layers.Dense(3, activation="relu")), "'net', which ends in Dense 'dense"),
        (ends_in(keras.layers.Dense(3), keras.layers.BatchNormalization()), "ends in BatchNorm"),
        (ends_in(keras.layers.Dense(3), keras.layers.Lambda(lambda x: x)), "ends in Lambda"),
        (_Subclassed(), "a subclassed model"),
        (ends_in(keras.layers.Dense(3, activation="sigmoid")), "ends in a sigmoid of 3 outputs"),
    ],
)
def test_outputs_are_not_guessed(model, message):
    with pytest.raises(ValueError, match=rf"`teacher_outputs` must be.*{message}"):
        output_kind(model, None, "teacher_outputs")


def test_probabilities_become_logits(rng):
    z = rng.normal(size=(4, 3)).astype("float32")
    again = np.asarray(as_logits(softmax(z), "probabilities"))
    np.testing.assert_allclose(softmax(again), softmax(z), rtol=1e-5)
    np.testing.assert_array_equal(as_logits(z, "logits"), z)
    p = rng.uniform(0.01, 0.99, (4, 1)).astype("float32")
    both = softmax(np.asarray(as_logits(p, "probabilities")))
    np.testing.assert_allclose(both, np.concatenate([1 - p, p], 1), rtol=1e-5)
    assert np.isfinite(as_logits(np.array([[0.0, 1.0]]), "probabilities")).all()


# Photos


@pytest.mark.parametrize("size", [(24, 9), (5, 20), (10, 12)])
def test_resize_is_tensorflow_with_antialiasing(size, rng):
    images = rng.uniform(0, 255, (2, 10, 12, 3)).astype("float32")
    expected = tf.image.resize(images, size, antialias=True)
    np.testing.assert_allclose(resize(tf.constant(images), size), expected, atol=2e-3)
    compiled = tf.function(lambda x: resize(x, size), jit_compile=True)
    np.testing.assert_allclose(compiled(tf.constant(images)), expected, atol=2e-3)


def test_the_photo_is_that_behind_the_last_augmentation():
    layers = keras.layers
    flip, turn = layers.RandomFlip(name="flip"), layers.RandomRotation(0.1, name="turn")
    nested = keras.Sequential([layers.Rescaling(1 / 4, 3.0), flip, turn])
    last = [layers.Conv2D(2, 3, name="conv"), layers.Dropout(0.1)]
    first = [keras.Input((8, 8, 3)), layers.Rescaling(2.0, offset=-1.0), nested]
    model = keras.Sequential([*first, layers.Rescaling(9.0), *last])
    photo = find_photo(model, None)
    assert photo.layer is turn
    assert photo.augmented
    values = tf.constant([0.0, 1.0, 7.0])
    np.testing.assert_allclose(photo.raw((values * 2 - 1) / 4 + 3), values, atol=1e-6)
    assert find_photo(model, "input").layer is None
    assert find_photo(model, "conv").layer.name == "conv"
    with pytest.raises(ValueError, match=r"`photo_layer` must.*Did you mean 'flip'"):
        find_photo(model, "flap")
    with pytest.raises(TypeError, match="`photo_layer` must"):
        find_photo(model, 3)
    plain = keras.Sequential([keras.Input((8, 8, 3)), layers.Rescaling(2.0), layers.Dense(1)])
    assert find_photo(plain, None).layer is None


def test_an_unknown_scaling_before_the_augmentation_is_seen():
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.RandomFlip()(inputs / 255.0))
    assert find_photo(model, None).opaque is not None


# Schedules and keys


def test_a_schedule_is_a_line_through_its_moments():
    timeline = Timeline(epochs=10, steps_per_epoch=4)
    schedule = Schedule("alpha", {0.2: 1.0, 6: 0.5, 1.0: 0.0}, low=0.0, high=1.0)
    schedule.begin(timeline)
    found = [schedule.at(position, 10) for position in (0, 2, 4, 6, 8, 10)]
    np.testing.assert_allclose(found, [1.0, 1.0, 0.75, 0.5, 0.25, 0.0])
    assert schedule.lowest == 0.0


def test_a_schedule_may_be_a_function_and_is_checked():
    schedule = Schedule("alpha", lambda fraction: 2 * fraction, low=0.0, high=1.0)
    assert schedule.at(2.0, 8) == 0.5
    with pytest.raises(ValueError, match=r"`alpha` must be a number in \[0, 1\]. Received: alpha="):
        schedule.at(6.0, 8)


def test_keys_are_of_values_not_of_types_and_see_every_pixel(rng):
    photos = rng.integers(0, 256, (200, 5, 4, 3)).astype("uint8")
    keys = _keys(photos).numpy()
    assert len(set(keys)) == 200
    np.testing.assert_array_equal(_keys(photos.astype("float32")), keys)
    np.testing.assert_array_equal(tf.function(_keys, jit_compile=True)(tf.constant(photos)), keys)
    for place in [(0, 0, 0), (4, 3, 2), (2, 1, 1)]:
        other = photos.copy()
        other[(slice(None), *place)] ^= 1
        assert not set(_keys(other).numpy()) & set(keys)
    swapped = photos[:, :, ::-1]
    assert not set(_keys(swapped).numpy()) & set(keys)
