"""The cases of `ko.quantization`."""

import keras
import numpy as np

import kerasopt as ko
from tests.cases._case import IMAGES, NO_WEIGHTS, PROBED, UNBUILT, Case, aware, fit
from tests.models import small_cnn


def _silu():
    return ko.quantization.DecomposedLayer(
        keras.layers.Activation("silu", name="act"), "silu", {"gate": (0.0, 0.99609375)}
    )


def _scaled():
    product = keras.layers.Rescaling(2.0, name="product")
    weight = {"shape": (3,), "initializer": "ones", "name": "gamma"}
    return ko.quantization.WithVariables(
        product, {"args": ["tensor 0"], "kwargs": {}}, [weight], name="scaled"
    )


QUANTIZATION = (
    Case(
        "quantization",
        "Calibration",
        "result",
        make=lambda: ko.quantization.Calibration("minmax", 4, {"conv_range": (0.0, 1.0)}),
    ),
    Case(
        "quantization",
        "DecomposedLayer",
        "layer",
        make=_silu,
        bad=(
            ({"layer": "conv", "steps": "silu", "ranges": {}}, TypeError, "`layer` must be"),
            (
                {"layer": keras.layers.ReLU(), "steps": "sliu", "ranges": {}},
                ValueError,
                "`steps` must be one of",
            ),
        ),
        serializable=True,
        sample_input=IMAGES,
    ),
    Case(
        "quantization",
        "KernelLevels",
        "result",
        make=lambda: ko.quantization.kernel_levels(aware())[0],
    ),
    Case(
        "quantization",
        "kernel_levels",
        "function",
        make=lambda: ko.quantization.kernel_levels(aware()),
        bad=(({"model": NO_WEIGHTS}, ValueError, "A quantization-aware model is needed"),),
    ),
    Case(
        "quantization",
        "run_observed",
        "function",
        make=lambda: ko.quantization.run_observed(aware(), IMAGES, lambda _, rounded: rounded),
        bad=(
            (
                lambda: ko.quantization.run_observed(
                    NO_WEIGHTS, IMAGES, lambda _, rounded: rounded
                ),
                ValueError,
                "A quantization-aware model is needed",
            ),
        ),
    ),
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
            ({"num_bits": 17}, ValueError, "`num_bits` must be an integer"),
            ({"num_bits": 8.0}, TypeError, "`num_bits` must be an integer"),
        ),
        serializable=True,
        sample_input=IMAGES,
    ),
    Case(
        "quantization",
        "Gap",
        "result",
        make=lambda: ko.quantization.Gap(0, 1.0, None, None, None, 0.0, {}, trained=True),
    ),
    Case(
        "quantization",
        "QuantizationGap",
        "callback",
        make=lambda: ko.quantization.QuantizationGap(PROBED, every=3),
        bad=(
            ({"data": PROBED, "every": 0}, ValueError, "`every` must be an integer >= 1"),
            ({"data": PROBED, "every": 0.5}, TypeError, "`every` must be an integer"),
        ),
    ),
    Case(
        "quantization",
        "QuantizeAware",
        "callback",
        make=lambda: ko.quantization.QuantizeAware(start=0.5),
        bad=(
            ({"scheme": "int4"}, ValueError, "`scheme` must be one of"),
            ({"start": 1.5}, ValueError, "`start` must be a fraction"),
            ({"scheme": 8}, TypeError, "`scheme` must be a name"),
            ({"freeze_batch_norm": "late"}, TypeError, "`freeze_batch_norm` must be a fraction"),
            ({"freeze_ranges": 1.5}, ValueError, "`freeze_ranges` must be a fraction"),
            ({"observer": "max"}, ValueError, "`observer` must be one of"),
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
        "RenamedLayer",
        "layer",
        make=lambda: ko.quantization.RenamedLayer(keras.layers.ReLU(name="relu"), "left_relu"),
        bad=(({"layer": "relu", "name": "left_relu"}, TypeError, "`layer` must be a Keras layer"),),
        serializable=True,
        sample_input=IMAGES,
    ),
    Case(
        "quantization",
        "WithVariables",
        "layer",
        make=_scaled,
        bad=(({"op": "multiply", "arguments": {}, "own": []}, TypeError, "`op` must be a Keras"),),
        serializable=True,
        sample_input=IMAGES,
    ),
    Case(
        "quantization",
        "load_float_weights",
        "function",
        make=lambda: ko.quantization.load_float_weights(aware(), small_cnn()),
        bad=(
            (
                {"model": NO_WEIGHTS, "source": NO_WEIGHTS},
                ValueError,
                "A quantization-aware model is needed",
            ),
            (
                lambda: ko.quantization.load_float_weights(aware(), 3),
                TypeError,
                "`source` must be a float model, or the path",
            ),
        ),
    ),
    Case(
        "quantization",
        "Scheme",
        "result",
        make=lambda: ko.quantization.Scheme(16, symmetric=True),
        bad=(
            ({"activation_num_bits": 4}, ValueError, "`activation_num_bits` must be 8, 16"),
            ({"weight_num_bits": 4}, ValueError, "`weight_num_bits` must be 8"),
            (lambda: ko.quantization.Scheme.of("int9"), ValueError, "`scheme` must be one of"),
        ),
        serializable=True,
    ),
    Case(
        "quantization",
        "calibrate",
        "function",
        make=lambda: ko.quantization.calibrate(
            ko.quantization.quantize_aware(NO_WEIGHTS), np.eye(4)
        ),
        bad=(
            ({"model": NO_WEIGHTS, "data": IMAGES}, ValueError, "A quantization-aware model"),
            (lambda: _calibrate(np.ones((2, 4))), ValueError, "`data` must vary"),
            (lambda: _calibrate(3), TypeError, "`data` must be an array"),
            (lambda: _calibrate(np.eye(4), "max"), ValueError, "`observer` must be one of"),
            (lambda: _calibrate(np.eye(4), num_samples=0), ValueError, "`num_samples` must be"),
            (lambda: _calibrate(np.eye(4), batch_size=0), ValueError, "`batch_size` must be"),
            (lambda: _calibrate(np.eye(4), percentile=0.5), ValueError, "`percentile` must be"),
        ),
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
        bad=(
            ({"x": [0.3], "low": -1.0, "high": 1.0, "num_bits": 1}, ValueError, r"in \[2, 16\]"),
            ({"x": [0.3], "low": -1.0, "high": 1.0, "num_bits": "8"}, TypeError, "`num_bits`"),
        ),
    ),
    Case(
        "quantization",
        "fake_quantize_kernel",
        "function",
        make=lambda: ko.quantization.fake_quantize_kernel([[0.3, 0.2]], (0,)),
        bad=(
            ({"kernel": [[0.3]], "axes": (0,), "num_bits": 17}, ValueError, r"in \[2, 16\]"),
            ({"kernel": [[0.3]], "axes": (0,), "num_bits": 8.5}, TypeError, "`num_bits`"),
        ),
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
            ({"model": NO_WEIGHTS, "scheme": None}, TypeError, "`scheme` must be a name"),
            ({"model": NO_WEIGHTS, "scheme": {"conv": None}}, ValueError, "`scheme` must choose"),
            ({"model": NO_WEIGHTS, "layers": "conv"}, ValueError, "`layers` must choose at least"),
            (lambda: ko.quantization.quantize_aware(aware()), ValueError, "needs a float model"),
        ),
    ),
    Case(
        "quantization",
        "resolve_scheme",
        "function",
        of_model=lambda model: ko.quantization.resolve_scheme(model, {"logits": None}),
        bad=(
            ({"model": NO_WEIGHTS, "scheme": "int4"}, ValueError, "`scheme` must be one of"),
            ({"model": NO_WEIGHTS, "scheme": 8}, TypeError, "`scheme` must be a name"),
        ),
    ),
    Case(
        "quantization",
        "scheme_of",
        "function",
        make=lambda: ko.quantization.scheme_of(aware()),
        bad=(({"model": NO_WEIGHTS}, ValueError, "A quantization-aware model is needed"),),
    ),
    Case(
        "quantization",
        "strip",
        "transform",
        of_model=lambda model: ko.quantization.strip(ko.quantization.quantize_aware(model)),
        bad=(({"model": NO_WEIGHTS}, ValueError, "A quantization-aware model is needed"),),
    ),
    Case(
        "quantization",
        "symmetric_range",
        "function",
        make=lambda: ko.quantization.symmetric_range(-1.0, 2.0),
        bad=(
            ({"low": -1.0, "high": 2.0, "num_bits": 1}, ValueError, r"in \[2, 16\]"),
            ({"low": -1.0, "high": 2.0, "num_bits": 8.0}, TypeError, "`num_bits`"),
        ),
    ),
)


def _calibrate(*args, **options):
    model = ko.quantization.quantize_aware(NO_WEIGHTS)
    return ko.quantization.calibrate(model, *args, **options)
