"""Models, data and a look at all state, for the tests of the learning-rate range test."""

import keras
import numpy as np

from kerasopt.transfer import LearningRateFinder
from tests.models import stripes

X, Y = stripes(32)
RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(48, 6)).astype("float32")
TARGETS = POINTS.sum(axis=1, keepdims=True) + 3.0


def dense(optimizer=None, **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="tanh", name="block1_dense"),
            keras.layers.Dense(8, activation="tanh", name="block2_dense"),
            keras.layers.Dense(1, name="logits"),
        ]
    )
    options.setdefault("jit_compile", False)
    model.compile(optimizer or keras.optimizers.SGD(0.1), "mse", **options)
    return model


def finder(**options):
    return LearningRateFinder(**{"num_steps": 30, "min_rate": 1e-5, "max_rate": 1.0, **options})


HOOKS = {"call", "compute_loss", "train_step", "make_train_function", "make_test_function"}


class Everything:
    """All state of a model and its optimizer."""

    def __init__(self, model):
        self.optimizer, self.built = model.optimizer, model.optimizer.built
        self.hooks = HOOKS & set(vars(model))
        self.settings = model.stop_training, model.steps_per_execution, model.jit_compile
        self.history = vars(model).get("history")
        groups = model.variables, model.metrics_variables, model.optimizer.variables
        self.variables = [list(group) for group in groups]
        self.values = [[v.numpy() for v in group] for group in groups]
        self.rate = self.rate_of(model.optimizer)
        self.config = model.optimizer.get_config()

    @staticmethod
    def rate_of(optimizer):
        return vars(getattr(optimizer, "inner_optimizer", optimizer))["_learning_rate"]

    def assert_still(self, model, history=True):
        now = Everything(model)
        assert now.optimizer is self.optimizer
        assert now.rate is self.rate
        assert now.config == self.config
        assert now.settings == self.settings
        assert now.hooks == self.hooks == set()
        if history:
            assert now.built == self.built
            assert now.history is self.history
        for one, other in zip(self.variables, now.variables, strict=True):
            # Keras builds metrics with the first batch; those are at their start.
            assert [id(v) for v in one] == [id(v) for v in other[: len(one)]]
            assert not any(np.any(v.numpy()) for v in other[len(one) :])
        for one, other in zip(self.values, now.values, strict=True):
            for before, after in zip(one, other, strict=False):
                np.testing.assert_array_equal(before, after)
