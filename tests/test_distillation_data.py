"""Photos without labels, and teachers whose answers were stored."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasopt as ko
from kerasopt.distillation import Distill, cache_targets, kl_loss
from tests.models import stripes

X, Y = stripes(16)


def linear(classes=4, *, seed=0, front=(), name="linear"):
    keras.utils.set_random_seed(seed)
    layers = [*front, keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
    return keras.Sequential(
        [keras.Input((12, 12, 3)), *layers, keras.layers.Dense(classes)], name=name
    )


def compiled(model, rate=0.1, **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    options = {"loss": loss, "jit_compile": False, **options}
    model.compile(keras.optimizers.SGD(rate), **options)
    return model


def fit(model, *callbacks, data=(X, Y), **options):
    options = {"batch_size": 16, "shuffle": False, "verbose": 0, **options}
    return model.fit(*data, callbacks=list(callbacks), **options).history


def weights_after(callback, **options):
    model = compiled(linear())
    fit(model, callback, **options)
    return model.get_weights()


# Without labels


@pytest.mark.parametrize("metrics", [None, ["accuracy"]])
def test_alpha_one_needs_no_labels(metrics):
    student, teacher = compiled(linear(), metrics=metrics), linear(seed=1)
    z, t = student.predict(X, verbose=0), teacher.predict(X, verbose=0)
    history = fit(student, Distill(teacher, alpha=1.0), data=(X,), validation_data=(X, Y), epochs=2)
    soft = float(kl_loss(t, z, 4.0))
    assert history["soft_loss"][0] == pytest.approx(soft, rel=1e-5)
    assert history["loss"][0] == pytest.approx(soft, rel=1e-5)
    assert history["soft_loss"][1] < soft
    assert not {"hard_loss", "accuracy"} & set(history)
    evaluated = student.evaluate(X, Y, verbose=0, return_dict=True)
    for name, value in evaluated.items():
        assert history[f"val_{name}"][-1] == pytest.approx(value, rel=1e-5)


@pytest.mark.slow
def test_alpha_one_needs_no_loss_either():
    student = compiled(linear(), loss=None)
    history = fit(student, Distill(linear(seed=1), alpha=1.0), data=(X,))
    assert set(history) == {"loss", "soft_loss", "teacher_agreement"}


@pytest.mark.slow
def test_labels_are_the_students_loss_alone_with_alpha_zero():
    plain = compiled(linear())
    fit(plain)
    with_teacher = weights_after(Distill(linear(seed=1), alpha=0.0))
    for mine, theirs in zip(with_teacher, plain.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("callback", "data", "message"),
    [
        (lambda: Distill(linear(seed=1)), (X,), r"`alpha` must be 1.0 for photos without labels"),
        (
            lambda: Distill(linear(seed=1), alpha={0.0: 1.0, 1.0: 0.5}),
            (X,),
            r"`alpha` must be 1.0 for photos without labels",
        ),
    ],
)
def test_labels_are_asked_for(callback, data, message):
    with pytest.raises(ValueError, match=message):
        fit(compiled(linear()), callback(), data=data)


def test_two_streams_are_mixed():
    more = stripes(24, seed=7)[0]
    teacher, student = linear(seed=1), compiled(linear(), 0.0, metrics=["accuracy"])
    stream = tf.data.Dataset.from_tensor_slices(more).batch(6)
    history = fit(student, Distill(teacher, unlabelled=stream), batch_size=8)
    # Two steps: 8 labelled photos with 6 others each.
    soft = []
    for step in range(2):
        photos = np.concatenate([X[8 * step : 8 * step + 8], more[6 * step : 6 * step + 6]])
        z, t = (model.predict(photos, verbose=0) for model in (student, teacher))
        soft.append(float(kl_loss(t, z, 4.0)))
    assert history["soft_loss"][0] == pytest.approx(np.mean(soft), rel=1e-4)
    hard, accuracy = student.evaluate(X, Y, verbose=0)
    assert history["hard_loss"][0] == pytest.approx(hard, rel=1e-4)
    assert history["accuracy"][0] == pytest.approx(accuracy)


@pytest.mark.slow
def test_the_second_stream_has_its_own_turns():
    # Four steps of three photos go through eight photos and begin again; labels are ignored.
    seen = []

    def preprocessing(photos):
        tf.py_function(lambda p: seen.append(p.numpy()[4:, 0, 0, 0]), [photos], [])
        return photos

    more = np.arange(8, dtype="float32")[:, None, None, None] * np.ones((12, 12, 3), "float32")
    stream = tf.data.Dataset.from_tensor_slices((more, np.zeros(8))).batch(3)
    callback = Distill(linear(seed=1), unlabelled=stream, preprocessing=preprocessing)
    fit(compiled(linear()), callback, batch_size=4)
    np.testing.assert_array_equal(seen, [[0, 1, 2], [3, 4, 5], [6, 7, 0], [1, 2, 3]])


@pytest.mark.slow
def test_an_array_is_a_stream_and_mixup_leaves_it_alone():
    more = stripes(5, seed=7)[0]
    callbacks = [ko.augmentation.MixUp(1.0, seed=1), Distill(linear(seed=1), unlabelled=more)]
    history = fit(compiled(linear()), *callbacks, batch_size=8, epochs=2)
    assert np.isfinite(history["loss"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("jit_compile", [False, True])
def test_several_steps_of_an_execution_take_several_batches(jit_compile):
    stream = tf.data.Dataset.from_tensor_slices(stripes(16, seed=7)[0]).batch(4)
    found = []
    for steps in (1, 4):
        model = compiled(linear(), steps_per_execution=steps, jit_compile=jit_compile)
        fit(model, Distill(linear(seed=1), unlabelled=stream), batch_size=4, epochs=2)
        found.append(model.get_weights())
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (np.zeros((4, 6, 6, 3), "float32"), r"`unlabelled` must hold photos of the shape"),
        (tf.data.Dataset.from_tensor_slices(X[:0]).batch(2), "`unlabelled` must hold at least"),
    ],
    ids=["shape", "empty"],
)
def test_streams_that_do_not_fit(stream, message):
    with pytest.raises(ValueError, match=message):
        fit(compiled(linear()), Distill(linear(seed=1), unlabelled=stream))


# Stored


def test_stored_targets_train_as_the_teacher_does(tmp_path):
    teacher = linear(seed=1)
    path = cache_targets((X.astype("uint8"), Y), teacher, tmp_path / "targets.npz")
    x = X.astype("uint8").astype("float32")
    live, stored = (
        weights_after(callback, data=(x, Y), epochs=3, batch_size=4, shuffle=True)
        for callback in (Distill(teacher), Distill(targets=path))
    )
    for one, other in zip(live, stored, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.slow
def test_stored_targets_hold_probabilities_and_take_maps_and_averages(tmp_path):
    layers = [keras.layers.Flatten(), keras.layers.Dense(5, activation="softmax")]
    five = keras.Sequential([keras.Input((12, 12, 3)), *layers])
    teachers = [five, keras.models.clone_model(five)]
    paths = [cache_targets(X, t, tmp_path / f"{n}.npz") for n, t in enumerate(teachers)]
    options = {"class_map": [4, [0, 1], 2, 3], "weights": [1, 2], "temperature": 2.0}
    live = weights_after(Distill(teachers, **options))
    stored = weights_after(Distill(targets=paths, **options))
    for one, other in zip(live, stored, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.slow
def test_stored_features_train_as_those_of_the_teacher_do(tmp_path):
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(6, 3, name="conv")]
    layers += [keras.layers.GlobalAveragePooling2D(name="pool"), keras.layers.Dense(4)]
    teacher = keras.Sequential([keras.Input((12, 12, 3)), *layers])
    path = cache_targets(X, teacher, tmp_path / "targets.npz", features=["pool", "conv"])
    options = {"features": {"s_conv": "pool"}, "feature_weight": 0.7}
    found = []
    for callback in (Distill(teacher, **options), Distill(targets=path, **options)):
        keras.utils.set_random_seed(2)
        front = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(2, 3, name="s_conv")]
        student = compiled(linear(front=front))
        fit(student, callback, batch_size=4, shuffle=True)
        found.append(student.get_weights())
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    student = compiled(linear())
    with pytest.raises(ValueError, match=r"'targets.npz' holds, \['pool', 'conv'\]. Received: 'x'"):
        fit(student, Distill(targets=path, features={student.layers[-1].name: "x"}))


@pytest.mark.slow
def test_a_file_of_the_same_is_not_made_again(tmp_path):
    teacher, calls = linear(seed=1), []

    def preprocessing(photos):
        calls.append(1)
        return photos

    def store(data, teacher=teacher):
        path = cache_targets(data, teacher, tmp_path / "t.npz", preprocessing=preprocessing)
        count = len(calls)
        calls.clear()
        return count, path.read_bytes()

    first = store(X)
    assert first[0]
    assert store(X[::-1]) == (0, first[1])  # whatever their order
    assert store(X[:8])[0]
    assert store(X[:8], linear(seed=2))[0]


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_other_photos_are_noticed(tmp_path, jit_compile):
    path = cache_targets(X, linear(seed=1), tmp_path / "targets.npz")
    other = X.copy()
    other[3, 5, 5, 1] += 0.01
    student = compiled(linear(), jit_compile=jit_compile)
    with pytest.raises(ValueError, match=r"Received: 1 photos that 'targets.npz' does not know"):
        fit(student, Distill(targets=path), data=(other, Y))
    with pytest.raises(ValueError, match=r"Received: 16 photos that"):
        fit(student, Distill(targets=path), data=(X / 255, Y))
    fit(student, Distill(targets=path))


@pytest.mark.slow
def test_stored_targets_are_refused_with_augmentation(tmp_path):
    path = cache_targets(X, linear(seed=1), tmp_path / "targets.npz")
    student = compiled(linear(front=[keras.layers.RandomFlip()]))
    with pytest.raises(ValueError, match=r"as they are, and the student sees augmented ones"):
        fit(student, Distill(targets=path))
    history = fit(student, Distill(targets=path, allow_augmented=True))
    assert np.isfinite(history["loss"]).all()
    for callbacks in ([ko.augmentation.MixUp(), Distill(targets=path)],
                      [Distill(targets=path), ko.augmentation.CutMix()]):  # fmt: skip
        with pytest.raises(ValueError, match=r"targets together with (MixUp|CutMix)"):
            fit(compiled(linear()), *callbacks)


def test_other_files_are_refused(tmp_path):
    np.savez(tmp_path / "other.npz", x=X)
    (tmp_path / "text.npz").write_text("no targets")
    for name in ("other.npz", "text.npz"):
        with pytest.raises(ValueError, match="which is another kind of file"):
            Distill(targets=tmp_path / name)
    with pytest.raises(TypeError, match="`targets` must be the path"):
        Distill(targets=3)
    with pytest.raises(ValueError, match="Received: both of them"):
        Distill(linear(), targets=tmp_path / "other.npz")
