"""Averages of weights over the end of training, and statistics measured anew."""

import keras
import numpy as np
import pytest

from kerasopt.pruning import PruneLowMagnitude
from kerasopt.transfer import Unfreeze, WeightAveraging, recalibrate_batch_norm
from tests.models import compiled, small_cnn, stripes


def arrays(model):
    return {w.path: np.asarray(w) for w in model.weights}


class Watch(keras.callbacks.Callback):
    """The weights behind each batch, and those that validation and checkpoints see."""

    def __init__(self):
        super().__init__()
        self.batches, self.tests, self.epochs = [], [], []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(arrays(self.model))

    def on_test_begin(self, logs=None):
        self.tests.append(arrays(self.model))

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(arrays(self.model))


def run(averaging, epochs=4, **options):
    model, (x, y) = compiled(small_cnn(), **{"jit_compile": False, **options}), stripes(32)
    watch = Watch()
    model.fit(
        x,
        y,
        batch_size=8,
        epochs=epochs,
        verbose=0,
        validation_data=(x, y),
        callbacks=[averaging, watch],
    )
    return model, watch


def close(found, expected):
    for path, value in expected.items():
        np.testing.assert_allclose(found[path], value, atol=1e-5, err_msg=path)


@pytest.mark.slow
def test_ema_is_the_recursion_over_batches():
    model, watch = run(WeightAveraging("ema", start=0.5, momentum=0.8))
    floats = [p for p in watch.batches[0] if "seed" not in p]
    expected = {path: watch.batches[7][path] for path in floats}  # as they were when it began
    for index, after in enumerate(watch.batches[8:], start=8):
        expected = {p: 0.8 * expected[p] + 0.2 * after[p] for p in floats}
        if index == 11:
            close(watch.tests[2], expected)
            close(watch.epochs[2], expected)
    close(arrays(model), expected)
    # Training went on with the weights themselves, not with their average.
    assert np.any(watch.batches[12]["logits/kernel"] != watch.tests[2]["logits/kernel"])
    close(watch.tests[1], watch.batches[7])  # before it begins, validation sees the weights


@pytest.mark.slow
def test_swa_is_the_mean_over_epochs():
    model, watch = run(WeightAveraging("swa", start=2))
    ends = [watch.batches[11], watch.batches[15]]
    close(watch.tests[2], ends[0])
    expected = {p: (ends[0][p] + ends[1][p]) / 2 for p in ends[0] if "seed" not in p}
    close(arrays(model), expected)


@pytest.mark.slow
def test_swa_recalibrates_at_the_end():
    x, _ = stripes(32)
    model, _ = run(WeightAveraging("swa", start=2, recalibrate=x))
    before = arrays(model)
    recalibrate_batch_norm(model, x)
    close(arrays(model), before)


@pytest.mark.slow
def test_frozen_and_pruned_weights_stay_what_they_are():
    model, (x, y) = compiled(small_cnn(), jit_compile=False), stripes(32)
    start = arrays(model)
    model.fit(
        x,
        y,
        batch_size=8,
        epochs=4,
        verbose=0,
        callbacks=[
            Unfreeze({2: 1}),
            PruneLowMagnitude(0.5, layers="block2_conv"),
            WeightAveraging("ema", start=0.25, momentum=0.9),
        ],
    )
    end = arrays(model)
    np.testing.assert_array_equal(end["stem_conv/kernel"], start["stem_conv/kernel"])
    assert np.mean(end["block2_conv/kernel"] == 0) == 0.5


@pytest.mark.slow
def test_interrupted_in_validation_the_weights_come_back():
    class Stop(keras.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model, (x, y) = compiled(small_cnn(), jit_compile=False), stripes(16)
    watch = Watch()
    with pytest.raises(KeyboardInterrupt):
        model.fit(
            x,
            y,
            batch_size=8,
            verbose=0,
            validation_data=(x, y),
            callbacks=[WeightAveraging(start=0.0, momentum=0.5), watch, Stop()],
        )
    model.predict(x, verbose=0)
    close(arrays(model), watch.batches[-1])
    assert np.any(watch.tests[0]["logits/kernel"] != watch.batches[-1]["logits/kernel"])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: WeightAveraging("mean"), ValueError, "`kind` must be one of 'ema', 'swa'"),
        (lambda: WeightAveraging(momentum=1.0), ValueError, "`momentum` must be a number in"),
        (lambda: WeightAveraging(start="end"), TypeError, "`start` must be"),
        (lambda: run(WeightAveraging(start=1.0)), ValueError, "nothing to average"),
    ],
)
def test_bad_averaging(make, error, message):
    with pytest.raises(error, match=message):
        make()


def norms(model):
    return [la for la in model.layers if isinstance(la, keras.layers.BatchNormalization)]


def test_statistics_are_those_of_the_data():
    model, (x, _) = small_cnn(), stripes(48)
    norms(model)[0].moving_mean.assign(np.full(8, 5.0))
    before = arrays(model)
    assert recalibrate_batch_norm(model, x, batch_size=16) == 2
    stem = keras.Model(model.input, model.get_layer("stem_conv").output)
    features = np.asarray(stem(x), "float64")
    np.testing.assert_allclose(norms(model)[0].moving_mean, features.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(norms(model)[0].moving_variance, features.var((0, 1, 2)), rtol=1e-3)
    # The second layer's input depends on the first one's batches.
    deep = keras.Model(model.input, model.get_layer("block1_depthwise").output)
    variance = np.asarray(deep(x), "float64").var((0, 1, 2))
    np.testing.assert_allclose(norms(model)[1].moving_variance, variance, rtol=0.1)
    after = arrays(model)
    changed = {p for p in before if not np.array_equal(before[p], after[p])}
    assert changed == {
        f"{n.name}/{v}" for n in norms(model) for v in ("moving_mean", "moving_variance")
    }
    assert [n.momentum for n in norms(model)] == [0.99, 0.99]
    assert not any("call" in vars(norm) for norm in norms(model))


@pytest.mark.slow
def test_data_sorted_by_class():
    x, y = stripes(96)
    order = np.argsort(y, kind="stable")
    x, y = x[order], y[order]
    mixed, sorted_, again = small_cnn(), small_cnn(), small_cnn()
    for model in (sorted_, again):
        model.set_weights(mixed.get_weights())
    recalibrate_batch_norm(mixed, (x, y), batch_size=8)  # arrays are shuffled
    pipeline = [(x[i : i + 8], np.eye(4)[y[i : i + 8]]) for i in range(0, 96, 8)]
    with pytest.warns(UserWarning, match="hold one class each"):
        recalibrate_batch_norm(sorted_, pipeline)
    recalibrate_batch_norm(again, [(x, y)])  # the whole data as one batch is what is wanted
    wanted = norms(again)[1].moving_variance.numpy()
    off = [
        np.abs(norms(model)[1].moving_variance.numpy() / wanted - 1).max()
        for model in (mixed, sorted_)
    ]
    assert off[0] < off[1]


def test_flags_filter_and_limits_of_recalibration():
    model, (x, y) = small_cnn(), stripes(32)
    norms(model)[0].trainable = False
    before = arrays(model)
    data = iter([(x[:8], y[:8]), (None, None)])  # the second batch would fail
    assert recalibrate_batch_norm(model, data, layers="stem", num_batches=1) == 1
    assert not norms(model)[0].trainable
    assert norms(model)[1].trainable
    after = arrays(model)
    assert np.any(before["stem_bn/moving_mean"] != after["stem_bn/moving_mean"])
    np.testing.assert_array_equal(before["block1_bn/moving_mean"], after["block1_bn/moving_mean"])


def test_a_failing_stream_leaves_the_statistics():
    model, (x, _) = small_cnn(), stripes(16)
    before = arrays(model)

    def broken():
        yield x
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        recalibrate_batch_norm(model, broken())
    close(arrays(model), before)
    with pytest.raises(ValueError, match="at least one example"):
        recalibrate_batch_norm(model, x[:0])
    with pytest.raises(ValueError, match="must have a BatchNormalization layer"):
        recalibrate_batch_norm(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]), x)
