"""`Distill` in `fit`: what is paid, what the teacher sees, what stays as it was."""

import random

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasopt as ko
from kerasopt.distillation import Distill
from tests.models import stripes

X, Y = stripes(16)
# As an object: of the name "kl_divergence", its default, Keras makes a function of probabilities,
# and compares logits with it.
KL = keras.losses.KLDivergence()


def linear(classes=4, *, seed=0, shape=(12, 12, 3), front=(), activation=None, name=None):
    """Softmax regression; `front` stands before it."""
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
    head = keras.layers.Dense(classes, activation=activation, name="head")
    return keras.Sequential([keras.Input(shape), *front, *layers, head], name=name)


def compiled(model, rate=0.1, *, loss=None, **options):
    options.setdefault("jit_compile", False)
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate), loss=loss, **options)
    return model


def fit(model, *callbacks, x=X, y=Y, epochs=1, batch_size=16, **options):
    data = (x,) if y is None else (x, y)
    return model.fit(
        *data, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0,
        callbacks=list(callbacks), **options,
    ).history  # fmt: skip


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


# What is paid


def test_one_step_is_that_of_the_formula():
    student, teacher = compiled(linear(), 0.5), linear(seed=1)
    kernel, bias = student.get_layer("head").get_weights()
    s, t = (model.predict(X, verbose=0).astype("float64") for model in (student, teacher))
    weight = np.linspace(0.5, 1.5, 16)
    history = fit(student, Distill(teacher, temperature=3.0, alpha=0.7), sample_weight=weight)
    p, q, hit = softmax(t / 3), softmax(s / 3), np.eye(4)[Y]
    hard = np.mean(weight * -np.log(softmax(s)[np.arange(16), Y]))
    soft = 9 * np.mean(np.sum(p * np.log(p / q), -1))
    assert history["hard_loss"][0] == pytest.approx(hard, rel=1e-5)
    assert history["soft_loss"][0] == pytest.approx(soft, rel=1e-4)
    assert history["loss"][0] == pytest.approx(0.3 * hard + 0.7 * soft, rel=1e-5)
    agreement = np.mean(s.argmax(-1) == t.argmax(-1))
    assert history["teacher_agreement"][0] == pytest.approx(agreement)
    # The gradient of the whole with respect to the logits, by hand.
    gradient = (0.3 * weight[:, None] * (softmax(s) - hit) + 0.7 * 3 * (q - p)) / 16
    flat = X.reshape(16, -1) / 255
    after = student.get_layer("head").get_weights()
    np.testing.assert_allclose(after[0], kernel - 0.5 * flat.T @ gradient, atol=1e-5)
    np.testing.assert_allclose(after[1], bias - 0.5 * gradient.sum(0), atol=1e-5)


@pytest.mark.parametrize("features", [pytest.param(False, marks=pytest.mark.slow), True])
def test_equal_to_the_distiller_of_keras(features):
    def pair():
        keras.utils.set_random_seed(3)
        nets = []
        for name in ("teacher", "student"):
            layers = [keras.layers.Flatten(), keras.layers.Dense(5, "tanh", name=f"{name}_hidden")]
            layers += [keras.layers.Dense(4)]
            nets.append(keras.Sequential([keras.Input((12, 12, 3)), *layers]))
        return nets

    x = X / 255
    teacher, student = pair()
    losses = [keras.distillation.LogitsDistillation(3.0, KL)]
    if features:
        losses += [
            keras.distillation.FeatureDistillation("mse", "teacher_hidden", "student_hidden")
        ]
    weights = [1.0, 0.5][: len(losses)]
    distiller = keras.distillation.Distiller(teacher, student, losses, weights, 0.4)
    compiled(distiller)
    fit(distiller, x=x, batch_size=4, epochs=3)

    teacher, ours = pair()
    extra = {"features": {"student_hidden": "teacher_hidden"}, "feature_weight": 0.6 * 0.5}
    callback = Distill(teacher, temperature=3.0, alpha=0.6, **(extra if features else {}))
    fit(compiled(ours), callback, x=x, batch_size=4, epochs=3)
    for mine, theirs in zip(ours.get_weights(), student.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-5)


@pytest.mark.slow
def test_losses_of_keras_and_functions_are_taken():
    teacher = linear(seed=1)
    losses = [
        Distill(teacher, temperature=2.0),
        Distill(teacher, loss=keras.distillation.LogitsDistillation(2.0, KL)),
        Distill(teacher, loss=lambda t, s: ko.distillation.kl_loss(t, s, 2.0)),
    ]
    found = [fit(compiled(linear()), callback)["soft_loss"][0] for callback in losses]
    np.testing.assert_allclose(found, found[0], rtol=1e-4)


def test_regularization_is_paid_in_full():
    student = linear()
    student.get_layer("head").kernel.regularizer = keras.regularizers.L2(0.1)
    penalty = 0.1 * np.sum(np.square(student.get_layer("head").get_weights()[0]))
    history = fit(compiled(student), Distill(linear(seed=1), alpha=0.8))
    labels = 0.2 * history["hard_loss"][0] + 0.8 * history["soft_loss"][0]
    assert history["loss"][0] == pytest.approx(labels + penalty, rel=1e-5)


@pytest.mark.slow
def test_class_weights_and_metrics_are_the_students_own():
    student, plain = compiled(linear(), metrics=["accuracy"]), compiled(linear())
    weights = {0: 1.0, 1: 2.0, 2: 0.5, 3: 3.0}
    expected = fit(plain, class_weight=weights)["loss"][0]
    history = fit(student, Distill(linear(seed=1)), class_weight=weights, validation_data=(X, Y))
    assert history["hard_loss"][0] == pytest.approx(expected, rel=1e-5)
    assert {"accuracy", "val_accuracy", "val_loss"} <= set(history)
    # Validation is of the student alone.
    assert history["val_loss"][0] == pytest.approx(student.evaluate(X, Y, verbose=0)[0], rel=1e-5)


@pytest.mark.slow
def test_alpha_and_temperature_follow_their_schedules():
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            seen.append([float(v) for v in callback._numbers.values()])

    callback = Distill(linear(seed=1), alpha={0.0: 1.0, 1: 0.5}, temperature=lambda f: 1.0 + f)
    fit(compiled(linear()), callback, Watch(), epochs=2, batch_size=8)
    np.testing.assert_allclose(seen, [[1.0, 1.0], [0.75, 1.25], [0.5, 1.5], [0.5, 1.75]])


@pytest.mark.slow
def test_several_teachers_are_averaged():
    student, teachers = compiled(linear()), [linear(seed=1), linear(seed=2, activation="softmax")]
    z = student.predict(X, verbose=0)
    first = softmax(teachers[0].predict(X, verbose=0) / 2)
    second = softmax(np.log(teachers[1].predict(X, verbose=0)) / 2)
    p, q = 0.75 * first + 0.25 * second, softmax(z / 2)
    history = fit(student, Distill(teachers, weights=[3, 1], temperature=2.0))
    expected = 4 * np.mean(np.sum(p * np.log(p / q), -1))
    assert history["soft_loss"][0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_other_classes_through_a_map():
    student, teacher = compiled(linear(3)), linear(5, seed=1)
    z, t = student.predict(X, verbose=0), teacher.predict(X, verbose=0)
    history = fit(student, Distill(teacher, class_map=[[4, 2], None, 0], temperature=1.0), y=Y % 3)
    merged = np.stack([np.log(np.exp(t[:, 4]) + np.exp(t[:, 2])), t[:, 0]], 1)
    p, q = softmax(merged), softmax(z[:, [0, 2]])
    expected = np.mean(np.sum(p * np.log(p / q), -1))
    assert history["soft_loss"][0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_the_average_of_the_student_teaches():
    x, y = stripes(32)
    student = compiled(linear(), 0.5)
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(student.get_weights())

    callback = Distill("ema", ema_momentum=0.2)
    start = student.get_weights()
    history = fit(student, callback, Watch(), x=x, y=y, batch_size=8)
    average = start
    for count, weights in enumerate(seen, start=1):
        kept = min(0.2, (1 + count) / (10 + count))
        average = [kept * a + (1 - kept) * w for a, w in zip(average, weights, strict=True)]
    found = [np.asarray(a) for _, a in callback._panel.teachers[0]._pairs]
    for mine, expected in zip(found, average, strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-6)
    assert history["soft_loss"][0] > 0


# What the teacher sees. A teacher with the student's weights agrees with a student that does not
# move only if it sees the same photo.


def twins(front, teacher_front=(), teacher_shape=(12, 12, 3)):
    student = compiled(linear(front=front), 0.0)
    teacher = linear(shape=teacher_shape, front=teacher_front)
    teacher.set_weights(student.get_weights())
    return student, teacher


AUGMENTATIONS = {
    "kerasopt": lambda: [ko.augmentation.basic(seed=1)],
    "keras": lambda: [keras.layers.RandomFlip(seed=1), keras.layers.RandomBrightness(0.3, seed=2)],
    "nested": lambda: [keras.Sequential([keras.layers.RandomTranslation(0.3, 0.3, seed=1)])],
    "none": list,
}


@pytest.mark.parametrize(
    "name",
    [n if n == "keras" else pytest.param(n, marks=pytest.mark.slow) for n in AUGMENTATIONS],
)
def test_the_same_augmented_photo(name):
    student, teacher = twins(AUGMENTATIONS[name]())
    history = fit(student, Distill(teacher))
    assert history["soft_loss"][0] == pytest.approx(0, abs=1e-7)
    assert history["teacher_agreement"][0] == 1.0
    if name != "none":  # and it is another one than that of the input
        other = fit(student, Distill(teacher, photo_layer="input"))
        assert other["soft_loss"][0] > 1e-5


@pytest.mark.parametrize(
    "mixing",
    [ko.augmentation.MixUp, pytest.param(ko.augmentation.CutMix, marks=pytest.mark.slow)],
)
def test_the_same_mixed_photo(mixing):
    for order in (1, -1):
        student, teacher = twins([ko.augmentation.basic(seed=1)])
        history = fit(student, *[mixing(1.0, seed=1), Distill(teacher)][::order])
        assert history["soft_loss"][0] == pytest.approx(0, abs=1e-7)


@pytest.mark.slow
def test_mixing_and_a_teacher_add_up():
    # The labels' part is that of MixUp alone.
    alone = fit(compiled(linear(), 0.0), ko.augmentation.MixUp(1.0, seed=3))["loss"][0]
    callbacks = [ko.augmentation.MixUp(1.0, seed=3), Distill(linear(seed=1))]
    history = fit(compiled(linear(), 0.0), *callbacks)
    assert history["hard_loss"][0] == pytest.approx(alone, rel=1e-5)
    assert history["loss"][0] == pytest.approx((alone + history["soft_loss"][0]) / 2, rel=1e-5)


@pytest.mark.slow
def test_a_photo_that_was_scaled_before_its_augmentation():
    student, teacher = twins([keras.layers.Rescaling(1.0), keras.layers.RandomFlip(seed=1)])
    student.layers[0].scale, student.layers[0].offset = 2.0, 3.0
    raw = linear(front=[keras.layers.Rescaling(2.0, 3.0)])
    raw.set_weights(teacher.get_weights())
    assert fit(student, Distill(raw))["soft_loss"][0] == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_another_size_and_preprocessing():
    resizing = keras.layers.Resizing(12, 12)
    teacher = linear(shape=(24, 24, 3), front=[keras.layers.Rescaling(255.0), resizing])
    student = compiled(linear(), 0.0)
    seen = []

    def preprocessing(photos):
        seen.append(photos.shape)
        return photos / 255

    soft = fit(student, Distill(teacher, preprocessing=preprocessing))["soft_loss"][0]
    twice = tf.image.resize(tf.image.resize(X, (24, 24)), (12, 12))
    z, t = student.predict(X, verbose=0), linear().predict(twice, verbose=0)
    assert soft == pytest.approx(float(ko.distillation.kl_loss(t, z, 4.0)), rel=1e-2)
    assert seen
    assert {tuple(shape[1:]) for shape in seen} == {(12, 12, 3)}


@pytest.mark.slow
def test_grey_teachers_and_bytes():
    grey = linear(shape=(12, 12, 1), seed=1)
    student = compiled(linear(), 0.0)
    soft = fit(student, Distill(grey), x=X.astype("uint8"))["soft_loss"][0]
    photos = tf.image.rgb_to_grayscale(X.astype("uint8"))
    z, t = student.predict(X.astype("uint8"), verbose=0), grey.predict(photos, verbose=0)
    assert soft == pytest.approx(float(ko.distillation.kl_loss(t, z, 4.0)), rel=1e-3)


# What stays as it was


def busy_teacher():
    keras.utils.set_random_seed(5)
    layers = [keras.layers.RandomFlip(seed=3), keras.layers.Conv2D(3, 3, name="conv")]
    layers += [keras.layers.BatchNormalization(), keras.layers.Dropout(0.5, seed=4)]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4)]
    model = keras.Sequential([keras.Input((12, 12, 3)), *layers], name="busy")
    model.layers[1].trainable = False
    return model


def test_the_teacher_is_left_alone():
    teacher = busy_teacher()
    state = [np.asarray(v) for v in teacher.variables]
    flags = [layer.trainable for layer in teacher.layers]
    attributes = [set(vars(layer)) for layer in (teacher, *teacher.layers)]
    history = fit(
        compiled(linear()), Distill(teacher, features={"head": "conv"}), epochs=2, batch_size=4
    )
    assert np.isfinite(history["soft_loss"]).all()
    assert len(teacher.variables) > len(teacher.weights)  # seeds as well
    for before, after in zip(state, teacher.variables, strict=True):
        np.testing.assert_array_equal(before, after)
    assert [layer.trainable for layer in teacher.layers] == flags
    assert [set(vars(layer)) for layer in (teacher, *teacher.layers)] == attributes


def test_the_student_is_itself_alone(tmp_path):
    student, plain = (compiled(linear(name="student")) for _ in range(2))
    fit(plain)
    fit(student, Distill(busy_teacher(), features={"head": "conv"}), epochs=2)
    assert [v.path for v in student.variables] == [v.path for v in plain.variables]
    assert [v.name for v in student.optimizer.variables] == [
        v.name for v in plain.optimizer.variables
    ]
    assert set(vars(student)) == set(vars(plain))
    student.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), student.predict(X, verbose=0))
    assert len(loaded.variables) == len(plain.variables)


@pytest.mark.slow
def test_a_file_is_a_teacher_and_loading_it_draws_no_random_numbers(tmp_path):
    teacher = linear(seed=1)
    teacher.save(tmp_path / "teacher.keras")
    found = []
    for form in (teacher, tmp_path / "teacher.keras", str(tmp_path / "teacher.keras")):
        student, numbers = compiled(linear()), random.getstate()
        callback = Distill(form)
        assert random.getstate() == numbers
        found.append(fit(student, callback)["loss"][0])
    assert found[0] == found[1] == found[2]


# Features


def hidden(width, *, seed=0, pooled=False, name):
    keras.utils.set_random_seed(seed)
    conv = keras.layers.Conv2D(width, 3, strides=2, activation="relu", name=f"{name}_conv")
    layers = [keras.layers.Rescaling(1 / 255), conv]
    pool = keras.layers.GlobalAveragePooling2D(name=f"{name}_pool")
    layers += [pool] if pooled else [keras.layers.Flatten()]
    return keras.Sequential([keras.Input((12, 12, 3)), *layers, keras.layers.Dense(4)])


@pytest.mark.slow
def test_a_projection_is_learned_where_channels_differ():
    x, y = stripes(64)
    student, teacher = hidden(4, name="s"), hidden(7, seed=1, name="t")
    callback = Distill(teacher, alpha=0.0, features={"s_conv": "t_conv"}, feature_weight=1.0)
    compiled(student, 0.0)  # the student does not move, so that only the projection learns
    history = fit(student, callback, x=x, y=y, epochs=30, batch_size=16)
    extra = np.array(history["loss"]) - np.array(history["hard_loss"])
    assert extra[-1] < 0.9 * extra[0]
    (projection,) = callback._features._projections
    assert projection.kernel.shape == (4, 7)


@pytest.mark.slow
def test_pooled_features_and_other_sizes_are_compared():
    student, teacher = hidden(4, name="s"), hidden(4, seed=1, pooled=True, name="t")
    s = keras.Model(student.inputs, student.get_layer("s_conv").output).predict(X, verbose=0)
    t = keras.Model(teacher.inputs, teacher.get_layer("t_pool").output).predict(X, verbose=0)
    history = fit(compiled(student), Distill(teacher, alpha=0.0, features={"s_conv": "t_pool"}))
    expected = np.mean((s.mean((1, 2)) - t) ** 2)
    assert history["loss"][0] - history["hard_loss"][0] == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
def test_attention_is_transferred():
    student, teacher = hidden(4, name="s"), hidden(7, seed=1, name="t")
    s = keras.Model(student.inputs, student.get_layer("s_conv").output).predict(X, verbose=0)
    t = keras.Model(teacher.inputs, teacher.get_layer("t_conv").output).predict(X, verbose=0)
    callback = Distill(
        teacher, alpha=0.0, features={"s_conv": "t_conv"}, feature_loss="attention",
        feature_weight=2.0,
    )  # fmt: skip
    history = fit(compiled(student), callback)
    expected = 2 * float(ko.distillation.attention_loss(t, s))
    assert history["loss"][0] - history["hard_loss"][0] == pytest.approx(expected, rel=1e-3)
