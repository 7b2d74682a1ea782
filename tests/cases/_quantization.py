"""The cases of `ko.quantization`."""

import keras

import kerasopt as ko
from tests.cases._case import IMAGES, NO_WEIGHTS, UNBUILT, Case, aware, fit
from tests.models import small_cnn

QUANTIZATION = (
    Case(
        "quantization",
        "FakeQuantize",
        "layer",
        make=lambda: ko.quantization.FakeQuantize(2, 0.9, role="input", name="range"),
        bad=(
            ({"num_sites": 0}, ValueError, "`num_sites` must be an integer >= 1"),
            ({"momentum": 1.0}, ValueError, "`momentum` must be a number"),
            ({"fixed_range": (1.0, 2.0)}, ValueError, "`fixed_range` must hold 0"),
            ({"role": "output"}, ValueError, "`role` must be one of"),
        ),
        serializable=True,
        sample_input=IMAGES,
    ),
    Case(
        "quantization",
        "QuantizeAware",
        "callback",
        make=lambda: ko.quantization.QuantizeAware(start=0.5),
        bad=(
            ({"scheme": "int4"}, ValueError, "`scheme` must be one of"),
            ({"start": 1.5}, ValueError, "`start` must be a fraction"),
            ({"freeze_batch_norm": "late"}, TypeError, "`freeze_batch_norm` must be a fraction"),
            (
                lambda: fit(ko.quantization.QuantizeAware(start=1.0)),
                ValueError,
                "`start` must lie before the end",
            ),
            (
                lambda: fit(ko.quantization.QuantizeAware(layers="stem_cnov")),
                ValueError,
                "`layers` must choose at least one layer",
            ),
        ),
    ),
    Case(
        "quantization",
        "QuantizedLayer",
        "layer",
        make=lambda: ko.quantization.QuantizedLayer(keras.layers.Conv2D(4, 3, name="conv")),
        bad=(
            ({"layer": "conv"}, TypeError, "`layer` must be"),
            ({"layer": keras.layers.ReLU()}, TypeError, "`layer` must be"),
        ),
        serializable=True,
        sample_input=IMAGES,
    ),
    Case(
        "quantization",
        "export_twin",
        "function",
        make=lambda: ko.quantization.export_twin(aware()),
        bad=(
            ({"model": NO_WEIGHTS}, ValueError, "A quantization-aware model is needed"),
            (
                lambda: ko.quantization.export_twin(ko.quantization.quantize_aware(small_cnn())),
                ValueError,
                "has seen none",
            ),
        ),
    ),
    Case(
        "quantization",
        "fake_quantize",
        "function",
        make=lambda: ko.quantization.fake_quantize([0.3], -1.0, 1.0),
    ),
    Case(
        "quantization",
        "fake_quantize_kernel",
        "function",
        make=lambda: ko.quantization.fake_quantize_kernel([[0.3, 0.2]], (0,)),
    ),
    Case(
        "quantization",
        "float_operations",
        "function",
        make=lambda: ko.quantization.float_operations(aware()),
        bad=(({"model": NO_WEIGHTS}, ValueError, "A quantization-aware model is needed"),),
    ),
    Case(
        "quantization",
        "is_quantization_aware",
        "function",
        of_model=lambda model: ko.quantization.is_quantization_aware(model),
    ),
    Case(
        "quantization",
        "quantize_aware",
        "transform",
        of_model=lambda model: ko.quantization.quantize_aware(model),
        bad=(
            ({"model": UNBUILT}, ValueError, "needs a model that is built"),
            ({"model": NO_WEIGHTS, "scheme": "int4"}, ValueError, "`scheme` must be one of"),
            ({"model": NO_WEIGHTS, "layers": "conv"}, ValueError, "`layers` must choose at least"),
            (lambda: ko.quantization.quantize_aware(aware()), ValueError, "needs a float model"),
        ),
    ),
)
