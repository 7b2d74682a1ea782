"""What `Distill` refuses, and what it says."""

import keras
import numpy as np
import pytest

import kerasopt as ko
from kerasopt.distillation import Distill
from tests.models import stripes

X, Y = stripes(8)
X /= 255


def linear(classes=4, *, shape=(12, 12, 3), front=(), activation=None, name="linear"):
    layers = [*front, keras.layers.Flatten(), keras.layers.Dense(classes, activation, name="head")]
    return keras.Sequential([keras.Input(shape), *layers], name=name)


def compiled(model, **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(**{"optimizer": "sgd", "loss": loss, "jit_compile": False, **options})
    return model


def fit(model, *callbacks, x=X, y=Y):
    return model.fit(x, y, batch_size=8, verbose=0, callbacks=list(callbacks)).history


TWO_INPUTS = keras.Model(
    two := [keras.Input((12, 12, 3)), keras.Input((12, 12, 3))],
    keras.layers.Dense(4)(keras.layers.Flatten()(keras.layers.Add()(two))),
    name="two_inputs",
)
TWO_OUTPUTS = keras.Model(
    one := keras.Input((12, 12, 3)),
    [keras.layers.Dense(4, name=n)(keras.layers.Flatten()(one)) for n in ("first", "second")],
)
STUDENT = linear(name="shared")
CONV = keras.layers.Conv2D(5, 3, name="conv")


class Unknown(keras.Model):
    def __init__(self):
        super().__init__(name="unknown")
        self.flatten, self.dense = keras.layers.Flatten(), keras.layers.Dense(4)

    def call(self, inputs):
        return self.dense(self.flatten(inputs))


def called(model):
    model(X)
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Distill(TWO_INPUTS), "one input and one output.*2 inputs and 1 outputs"),
        (lambda: Distill(TWO_OUTPUTS), "one input and one output.*1 inputs and 2 outputs"),
        (lambda: Distill(called(Unknown())), "`teacher_outputs` must be 'logits' or 'probab"),
        (lambda: Distill(linear(activation="sigmoid")), "ends in a sigmoid of 4 outputs"),
        (lambda: Distill(["ema", linear()]), "`teacher` must be a keras.Model"),
        (lambda: Distill([linear(), linear()], weights=[1]), "each of the 2 teachers"),
        (lambda: Distill([linear(), linear()], weights=[1, 0]), "each of the 2 teachers"),
        (lambda: Distill([linear()], preprocessing=[abs, abs]), "2 for 1 teachers"),
        (
            lambda: Distill([linear(), linear()], features={"head": "head"}),
            "`features` needs one teacher that is a Keras model",
        ),
    ],
)
def test_teachers_that_are_none(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("teacher", "options", "message"),
    [
        (linear(shape=(12, 12, 4)), {}, "must be one that can be made of the student's photo"),
        (linear(shape=(432,)), {}, r"Received: photo of shape \(12, 12, 3\). Give `preprocessing`"),
        (STUDENT, {}, "`teacher` must not share layers with the student"),
        (linear(), {"features": {"haed": "head"}}, "layers of the student.*Did you mean 'head'"),
        (linear(), {"features": {"head": "hed"}}, "layers of the teacher.*Did you mean 'head'"),
        (
            linear(front=[CONV]),
            {"features": {"head": "conv"}, "feature_loss": "attention"},
            "`feature_loss='attention'` needs features of images",
        ),
        (linear(), {"class_map": [0, 1, 2]}, "an entry for each of the 4 classes"),
        (linear(activation="softmax"), {"loss": "mse"}, "probabilities of the teacher 'linear'"),
        (linear(), {"loss": "mse", "student_outputs": "probabilities"}, "of the student 'shared'"),
    ],
)
def test_before_or_at_the_first_batch(teacher, options, message):
    student = compiled(STUDENT)
    with pytest.raises(ValueError, match=message):
        fit(student, Distill(teacher, **options))


@pytest.mark.slow
def test_a_refusal_leaves_nothing():
    student = compiled(linear(name="student"))
    fit(student)
    weights, attributes = student.get_weights(), set(vars(student))
    for teacher in (linear(shape=(12, 12, 4)), linear(activation="softmax")):
        with pytest.raises(ValueError, match="Received"):
            fit(student, Distill(teacher, loss="mse"))
    assert set(vars(student)) == attributes
    assert not any("call" in vars(layer) for layer in student.layers)
    for one, other in zip(weights, student.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    fit(student)


@pytest.mark.slow
def test_features_are_names():
    with pytest.raises(TypeError, match="`features` must be a dict of layer names"):
        fit(compiled(linear()), Distill(linear(), features={3: "head"}))
    teacher = called(Unknown())
    callback = Distill(teacher, teacher_outputs="logits", features={"head": teacher.dense.name})
    with pytest.raises(ValueError, match="`features` needs models whose input shape is known"):
        fit(compiled(linear()), callback)


def test_a_student_that_is_not_compiled():
    callback = Distill(linear())
    callback.set_model(linear(name="raw"))
    callback.set_params({"epochs": 1, "steps": 1})
    with pytest.raises(ValueError, match=r"needs a compiled student.*'raw', not compiled"):
        callback.on_train_begin()


def test_a_student_without_a_loss():
    with pytest.raises(ValueError, match=r"`alpha` must be 1.0 for a student compiled without"):
        fit(compiled(linear(), loss=None), Distill(linear()))


@pytest.mark.slow
def test_a_student_of_which_nothing_tells_the_outputs():
    student = compiled(Unknown(), loss="sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="`student_outputs` must be 'logits' or 'probabilities'"):
        fit(student, Distill(linear()))
    # A loss that says so is enough, and so is the argument.
    fit(compiled(Unknown()), Distill(linear()))
    student = compiled(Unknown(), loss="sparse_categorical_crossentropy")
    fit(student, Distill(linear(), student_outputs="logits"))


def test_a_train_step_of_its_own_must_ask_for_the_loss():
    class Own(keras.Sequential):
        def train_step(self, data):
            return {"loss": 0.0}

    student = Own([keras.Input((12, 12, 3)), keras.layers.Flatten(), keras.layers.Dense(4)])
    with pytest.raises(ValueError, match=r"needs a train_step that calls self.compute_loss"):
        fit(compiled(student), Distill(linear()))


@pytest.mark.slow
def test_a_scaling_that_cannot_be_undone():
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.Flatten()(keras.layers.RandomFlip()(inputs / 255.0))
    student = compiled(keras.Model(inputs, keras.layers.Dense(4)(x)))
    with pytest.raises(ValueError, match="`preprocessing` is needed: the augmented photo is in"):
        fit(student, Distill(linear()))
    fit(student, Distill(linear(), preprocessing=lambda photos: photos * 255))


@pytest.mark.slow
def test_tflite_teaches_on_the_host_alone(tmp_path):
    teacher = linear()
    ko.export.to_tflite(teacher, tmp_path / "teacher.tflite")
    student = compiled(linear(), jit_compile=True)
    callback = Distill(tmp_path / "teacher.tflite")
    with pytest.raises(ValueError, match="A TFLite teacher runs on the host and cannot"):
        fit(student, callback)
    found = []
    for form in (teacher, tmp_path / "teacher.tflite",
                 ko.export.TFLiteModel(tmp_path / "teacher.tflite")):  # fmt: skip
        student = linear()
        student.set_weights([np.zeros_like(w) for w in student.get_weights()])
        found.append(fit(compiled(student), Distill(form))["soft_loss"][0])
    np.testing.assert_allclose(found, found[0], rtol=1e-3)


@pytest.mark.slow
def test_a_tflite_file_tells_its_outputs(tmp_path):
    for activation, kind in ((None, "logits"), ("softmax", "probabilities")):
        file = ko.export.to_tflite(linear(activation=activation), tmp_path / "teacher.tflite")
        callback = Distill(ko.export.TFLiteModel(file.content))
        assert callback._panel.teachers[0].kind == kind


def test_a_tflite_file_of_two_outputs_does_not_teach(tmp_path):
    inputs = keras.Input((4,))
    ends = [keras.layers.Dense(3, name=name)(inputs) for name in ("one", "two")]
    ko.export.to_tflite(keras.Model(inputs, ends), tmp_path / "teacher.tflite")
    with pytest.raises(ValueError, match=r"one output\. Received: 'teacher\.tflite' with 1 inputs"):
        Distill(tmp_path / "teacher.tflite")
