"""One base learning rate, times a factor for each depth."""

import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasopt as ko
from kerasopt.transfer import LayerwiseLearningRate, RateGroup, Unfreeze
from tests.models import compiled, small_cnn, stripes

RATE = 0.05
X, Y = stripes(16)
FACTORS = {"stem": 0.125, "block1": 0.25, "block2": 0.5, "logits": 1.0}


def plain_cnn(optimizer=None, **options):
    model = small_cnn()
    model.get_layer("head_dropout").rate = 0.0
    return compiled(model, optimizer=optimizer or keras.optimizers.SGD(RATE), **options)


def nested_cnn(optimizer=None):
    whole = small_cnn()
    inner = keras.Model(whole.inputs, whole.get_layer("block2_conv").output, name="inner")
    inputs = keras.Input((12, 12, 3))
    features = keras.layers.GlobalAveragePooling2D()(inner(inputs))
    model = keras.Model(inputs, keras.layers.Dense(4, name="logits")(features))
    return compiled(model, optimizer=optimizer or keras.optimizers.SGD(RATE))


def fit(model, *callbacks, epochs=1):
    return model.fit(
        X, Y, batch_size=8, shuffle=False, epochs=epochs, verbose=0, callbacks=list(callbacks)
    )


def layer_of(weight):
    return weight.path.split("/")[-2]


def factor_of(weight):
    return next(factor for name, factor in FACTORS.items() if name in weight.path)


def descend(model, rates, factor_of=factor_of):
    """Stochastic gradient descent by hand, one rate for each batch of 8."""
    for step, rate in enumerate(rates):
        batch = slice(8 * (step % 2), 8 * (step % 2) + 8)
        with tf.GradientTape() as tape:
            loss = model.compute_loss(y=Y[batch], y_pred=model(X[batch], training=True))
        weights = model.trainable_weights
        for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
            weight.assign(weight - rate * factor_of(weight) * gradient)
    return model


def assert_same(model, other, **tolerance):
    for one, two in zip(model.weights, other.weights, strict=True):
        np.testing.assert_allclose(one.numpy(), two.numpy(), **tolerance, err_msg=one.path)


CLOSE = {"rtol": 1e-4, "atol": 1e-5}


class Rates(keras.callbacks.Callback):
    """Notes the base learning rate of each batch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_begin(self, batch, logs=None):
        self.seen.append(float(self.model.optimizer.learning_rate))


@pytest.mark.parametrize("build", [pytest.param(plain_cnn, marks=pytest.mark.slow), nested_cnn])
def test_each_block_descends_at_its_rate(build):
    model = build()
    fit(model, LayerwiseLearningRate(0.5))
    assert_same(model, descend(build(), [RATE] * 2), **CLOSE)
    other = descend(build(), [RATE] * 2, lambda weight: 1.0)
    assert np.abs(other.weights[0] - model.weights[0]).max() > 1e-3


def per_epoch(epoch, rate):
    return RATE / (epoch + 1)


class PerBatch(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch, logs=None):
        self.model.optimizer.learning_rate = RATE * (1 + batch)


WARMUP = keras.optimizers.schedules.CosineDecay(
    RATE / 10, 4, warmup_target=RATE, warmup_steps=2, alpha=0.1
)
COSINE = [float(WARMUP(step)) for step in range(4)]
DRIVERS = {
    "LearningRateScheduler": (
        lambda: keras.callbacks.LearningRateScheduler(per_epoch),
        RATE,
        [RATE, RATE, RATE / 2, RATE / 2],
    ),
    "ReduceLROnPlateau": (
        lambda: keras.callbacks.ReduceLROnPlateau("loss", 0.25, patience=1, min_delta=99.0),
        RATE,
        [RATE] * 4 + [RATE / 4] * 2,
    ),
    "own callback": (PerBatch, RATE, [RATE, 2 * RATE] * 2),
    "warm-up and cosine": (keras.callbacks.Callback, WARMUP, COSINE),
}


@pytest.mark.parametrize(
    ("driver", "first"),
    [
        ("ReduceLROnPlateau", True),
        ("warm-up and cosine", True),
        pytest.param("own callback", True, marks=pytest.mark.slow),
        pytest.param("LearningRateScheduler", True, marks=pytest.mark.slow),
        pytest.param("LearningRateScheduler", False, marks=pytest.mark.slow),
    ],
)
def test_whatever_drives_the_base_rate_drives_all(driver, first):
    make, rate, expected = DRIVERS[driver]
    model, spy = plain_cnn(keras.optimizers.SGD(rate)), Rates()
    callbacks = [make(), LayerwiseLearningRate(0.5)]
    fit(model, *(callbacks if first else callbacks[::-1]), spy, epochs=len(expected) // 2)
    assert spy.seen == pytest.approx(expected)
    assert len(set(expected)) > 1
    assert_same(model, descend(plain_cnn(), expected), **CLOSE)


def test_given_factors_replace_those_of_the_depth_and_0_is_none():
    callback = LayerwiseLearningRate(0.5, lr_factors={"block1|stem_bn": 0.0, "project": 2.0})
    model = plain_cnn()
    start = {w.path: w.numpy() for w in model.weights}
    fit(model, callback)

    def factor(weight):
        name = layer_of(weight)
        if name == "block1_project":
            return 2.0
        return 0.0 if "block1" in name or name == "stem_bn" else factor_of(weight)

    assert_same(model, descend(plain_cnn(), [RATE] * 2, factor), **CLOSE)
    for path in ("block1_depthwise/kernel", "block1_bn/gamma", "stem_bn/beta"):
        weight = next(w for w in model.weights if w.path == path)
        np.testing.assert_array_equal(weight.numpy(), start[path])


@pytest.mark.slow
def test_factors_alone():
    model = plain_cnn()
    fit(model, LayerwiseLearningRate(lr_factors={"^logits$": 10.0}))
    factor = {"logits": 10.0}
    other = descend(plain_cnn(), [RATE] * 2, lambda weight: factor.get(layer_of(weight), 1.0))
    assert_same(model, other, **CLOSE)


@pytest.mark.slow
def test_depth_per_layer():
    callback = LayerwiseLearningRate(0.5, per="layer")
    table = callback.table(plain_cnn())
    assert [(g.name, g.factor, len(g.layers)) for g in table] == [
        ("stem_conv", 1 / 16, 2),
        ("block1_depthwise", 1 / 8, 2),
        ("block1_project", 1 / 4, 1),
        ("block2_conv", 1 / 2, 1),
        ("logits", 1.0, 1),
    ]
    model = plain_cnn()
    fit(model, callback)
    factors = {layer.name: group.factor for group in table for layer in group.layers}
    assert_same(model, descend(plain_cnn(), [RATE] * 2, lambda w: factors[layer_of(w)]), **CLOSE)


def test_table():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [0.1, 0.01])
    model = plain_cnn(keras.optimizers.SGD(schedule))
    model.get_layer("stem_bn").trainable = False
    callback = LayerwiseLearningRate(0.5, lr_factors={"bn": 0.1})
    table = callback.table(model)
    assert str(table).splitlines() == [
        "layers  factor  rate now  variables  training",
        "stem     0.125    0.0125          1         1",
        "block1    0.25     0.025          4         4",
        "block2     0.5      0.05          2         2",
        "logits       1       0.1          2         2",
        "bn         0.1      0.01          8         2",
    ]
    assert isinstance(table[0], RateGroup)
    assert table[0].layers == (model.get_layer("stem_conv"),)
    fit(model, callback)
    assert [group.rate for group in callback.table(model)] == pytest.approx(
        [group.rate / 10 for group in table]
    )
    uncompiled = LayerwiseLearningRate(0.5).table(small_cnn())
    assert uncompiled[0].rate is None
    assert str(uncompiled).splitlines()[1].split() == ["stem", "0.125", "-", "5", "3"]


def test_verbose_prints_the_table(capsys):
    model = plain_cnn()
    callback = LayerwiseLearningRate(0.5, verbose=1)
    fit(model, callback)
    assert str(callback.table(model)) in capsys.readouterr().out
    assert [event.label for event in callback.events] == ["learning rates × 0.125 to 1"]


class Weights(keras.callbacks.Callback):
    """Keeps the weights before and after each batch."""

    def on_train_begin(self, logs=None):
        self.steps = [{w.path: w.numpy() for w in self.model.weights}]

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append({w.path: w.numpy() for w in self.model.weights})


@pytest.mark.parametrize(
    ("build", "known"),
    [
        (nested_cnn, "head"),
        pytest.param(nested_cnn, None, marks=pytest.mark.slow),
        pytest.param(plain_cnn, "head", marks=pytest.mark.slow),
        pytest.param(plain_cnn, None, marks=pytest.mark.slow),
    ],
)
def test_with_unfreezing(build, known):
    """At the step that opens the backbone both runs have the same weights and gradients."""

    def run(*callbacks):
        model = build()
        if known:  # Unfreeze puts another optimizer in the place of such a one
            model.optimizer.build(model.get_layer("logits").trainable_weights)
        spy = Weights()
        fit(model, *callbacks, Unfreeze({1: "all"}), spy, epochs=2)
        assert not {"update_step", "_apply_weight_decay"} & set(vars(model.optimizer))
        return model, spy.steps

    model, steps = run(LayerwiseLearningRate(0.5))
    _, plain = run()
    for weight in model.trainable_weights:
        np.testing.assert_array_equal(steps[2][weight.path], plain[2][weight.path])
        moved = steps[3][weight.path] - steps[2][weight.path]
        wanted = factor_of(weight) * (plain[3][weight.path] - plain[2][weight.path])
        np.testing.assert_allclose(moved, wanted, rtol=1e-4, atol=1e-7)
        assert np.any(moved)


@pytest.mark.slow
def test_mixed_precision_with_loss_scaling():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model, plain = plain_cnn(), plain_cnn()
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        start = model.get_weights()
        for each, callbacks in ((model, [LayerwiseLearningRate(0.5)]), (plain, [])):
            each.fit(X, Y, batch_size=16, verbose=0, callbacks=callbacks)
    finally:
        keras.config.set_dtype_policy("float32")
    checked = 0
    for before, weight, other in zip(start, model.weights, plain.weights, strict=True):
        if weight.trainable:
            moved, wanted = weight.numpy() - before, other.numpy() - before
            np.testing.assert_allclose(moved, factor_of(weight) * wanted, rtol=1e-3, atol=1e-6)
            checked += bool(np.any(moved))
    assert checked >= 8


def adam():
    return keras.optimizers.AdamW(0.01, weight_decay=0.1)


@pytest.mark.slow
def test_the_model_file_knows_nothing_of_it_and_the_run_goes_on(tmp_path):
    whole = plain_cnn(adam())
    fit(whole, LayerwiseLearningRate(0.5), epochs=4)
    path = tmp_path / "model.keras"
    checkpoint = keras.callbacks.ModelCheckpoint(path)  # saves while the rates are on
    fit(plain_cnn(adam()), LayerwiseLearningRate(0.5), checkpoint, epochs=2)
    with zipfile.ZipFile(path) as archive:
        assert b"kerasopt" not in archive.read("config.json") + archive.read("metadata.json")
    loaded = keras.models.load_model(path)
    assert "update_step" not in vars(loaded.optimizer)
    fit(loaded, LayerwiseLearningRate(0.5), epochs=2)
    assert_same(loaded, whole, rtol=0, atol=0)


@pytest.mark.slow
def test_a_backed_up_run_goes_on_with_the_same_rates(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def run(*more):
        model = plain_cnn(adam())
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        callbacks = [LayerwiseLearningRate(0.5, lr_factors={"bn": 0.0}), backup]
        fit(model, *callbacks, *more, epochs=4)
        return model

    whole = plain_cnn(adam())
    fit(whole, LayerwiseLearningRate(0.5, lr_factors={"bn": 0.0}), epochs=4)
    with pytest.raises(KeyboardInterrupt):
        run(Stop())
    again = run()
    assert int(again.optimizer.iterations) == 8
    assert_same(again, whole, rtol=0, atol=0)


@pytest.mark.slow
def test_with_pruning_and_quantization():
    model = plain_cnn()
    frozen = model.get_layer("block2_conv").kernel.numpy()
    fit(
        model,
        ko.pruning.PruneLowMagnitude(0.5, layers="block1_project"),
        ko.quantization.QuantizeAware(start=0.5),
        LayerwiseLearningRate(0.5, lr_factors={"block2": 0.0}),
        epochs=4,
    )
    np.testing.assert_array_equal(model.get_layer("block2_conv").kernel.numpy(), frozen)
    assert np.mean(model.get_layer("block1_project").kernel.numpy() == 0) == 0.5


def test_a_weight_of_two_layers_has_one_rate():
    shared = keras.layers.Dense(8, name="shared")
    inputs = keras.Input((8,))
    inner = keras.Sequential([keras.Input((8,)), shared], name="block1_inner")
    hidden = keras.layers.Dense(8, name="block2_dense")(shared(inner(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(4, name="logits")(hidden))
    table = LayerwiseLearningRate(0.5).table(model)
    assert sum(shared in group.layers for group in table) == 1


def test_what_cannot_be():
    dense = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="only")])
    with pytest.raises(ValueError, match="`decay` needs a model with a backbone"):
        LayerwiseLearningRate(0.5).table(dense)
    assert len(LayerwiseLearningRate(lr_factors={"only": 2.0}).table(dense)) == 1
    with pytest.raises(ValueError, match=r"lr_factors='stem_cnv'. Did you mean 'stem_conv'"):
        fit(plain_cnn(), LayerwiseLearningRate(0.5, lr_factors={"stem_cnv": 1.0}))
    with pytest.raises(ValueError, match=r"at least one layer. Received: lr_factors='relu'"):
        fit(plain_cnn(), LayerwiseLearningRate(lr_factors={"relu": 1.0}))
    if hasattr(keras.optimizers, "MultiOptimizer"):
        model = plain_cnn()
        parts = keras.optimizers.OptimizerMap(keras.optimizers.SGD())
        model.optimizer = keras.optimizers.MultiOptimizer(parts)
        with pytest.raises(ValueError, match="one learning rate, which a MultiOptimizer has not"):
            fit(model, LayerwiseLearningRate(0.5))
        assert "make_train_function" not in vars(model)
