"""The cases of `ko.pruning`."""

from typing import Any

import kerasopt as ko
from tests.cases._case import IMAGES, NO_WEIGHTS, UNBUILT, Case, fit
from tests.models import small_cnn, stripes

LABELS = stripes(count=4)[1]
SCHEDULE = {"schedule": ko.pruning.ConstantSchedule()}


def pruned() -> Any:
    """A small model with zeros."""
    model = small_cnn()
    with ko.pruning.Masks(model, 0.5, **SCHEDULE) as masks:
        masks.update(0)
    return model


PRUNING = (
    Case(
        "pruning",
        "ConstantSchedule",
        "class",
        make=lambda: ko.pruning.ConstantSchedule(begin=0.1),
        bad=(
            ({"begin": 1.5}, ValueError, "`begin` must be a fraction"),
            ({"begin": "soon"}, TypeError, "`begin` must be a fraction"),
            (
                lambda: fit(
                    ko.pruning.PruneLowMagnitude(schedule=ko.pruning.ConstantSchedule(1.0))
                ),
                ValueError,
                "cannot finish in the planned steps",
            ),
        ),
    ),
    Case(
        "pruning",
        "FractionSchedule",
        "class",
        make=lambda: ko.pruning.FractionSchedule(begin=0.1, end=0.5),
        bad=(
            ({"initial_sparsity": 1.0}, ValueError, "`initial_sparsity` must be a number"),
            ({"begin": 1.5}, ValueError, "`begin` must be a fraction"),
            ({"begin": 0.8, "end": 0.2}, ValueError, "`begin` must"),
            ({"power": 0}, ValueError, "`power` must be a number"),
            ({"frequency": 0}, ValueError, "`frequency` must be"),
            ({"frequency": "often"}, TypeError, "`frequency` must be"),
        ),
    ),
    Case(
        "pruning",
        "KeptMasks",
        "class",
        make=lambda: ko.pruning.keep_masks(pruned()),
    ),
    Case(
        "pruning",
        "Masks",
        "class",
        make=lambda: ko.pruning.Masks(small_cnn(), 0.5, total_steps=4),
        bad=(
            ({"model": "model.keras", "total_steps": 4}, TypeError, "needs a Keras 3 model"),
            ({"model": UNBUILT, "total_steps": 4}, ValueError, "needs a model that is built"),
            ({"model": NO_WEIGHTS, "total_steps": 4}, ValueError, "needs a layer with a kernel"),
            (lambda: ko.pruning.Masks(small_cnn()), ValueError, "needs the number of steps"),
            (
                lambda: ko.pruning.Masks(small_cnn(), total_steps=4, layers="stem_cnov"),
                ValueError,
                "Did you mean 'stem_conv'",
            ),
            (
                lambda: ko.pruning.Masks(small_cnn(), total_steps=4).update(0.5),
                TypeError,
                "`step` must be an integer",
            ),
        ),
    ),
    Case(
        "pruning",
        "PruneLowMagnitude",
        "callback",
        make=lambda: ko.pruning.PruneLowMagnitude(0.5),
        bad=(
            ({"final_sparsity": 1.0}, ValueError, r"`final_sparsity` must be a number in \[0, 1\)"),
            ({"final_sparsity": "80%"}, TypeError, "`final_sparsity` must be a number"),
            ({"schedule": 0.5}, TypeError, "`schedule` must be a ko.pruning.FractionSchedule"),
            ({"structure": "row"}, ValueError, "`structure` must be one of"),
            ({"structure": "4:2"}, ValueError, "must have M zeros in every N weights"),
            (
                {"final_sparsity": 0.7, "structure": "2:4"},
                ValueError,
                "`final_sparsity` must be 0.5 or left out",
            ),
            ({"scope": "model"}, ValueError, "`scope` must be one of"),
            ({"targets": 0.5}, TypeError, "`targets` must be a dict"),
            (
                lambda: fit(ko.pruning.PruneLowMagnitude(layers="stem_cnov")),
                ValueError,
                "`layers` must choose at least one layer",
            ),
            (
                lambda: fit(ko.pruning.PruneLowMagnitude(layers=lambda layer: False)),
                ValueError,
                "`layers` must choose at least one layer",
            ),
            (
                lambda: fit(
                    ko.pruning.PruneLowMagnitude(
                        schedule=ko.pruning.FractionSchedule(begin=1, end=0.1)
                    )
                ),
                ValueError,
                "cannot finish in the planned steps",
            ),
        ),
    ),
    Case(
        "pruning",
        "Sensitivity",
        "result",
        make=lambda: ko.pruning.Sensitivity(0.9, (0.5,), ("a", "b"), (9, 9), ((0.9,), (0.8,))),
        bad=(
            (
                lambda: ko.pruning.Sensitivity(0.9, (0.5,), ("a",), (9,), ((0.9,),)).suggest(0.9),
                ValueError,
                "`sparsity` must be at most 0.5",
            ),
            (
                lambda: ko.pruning.Sensitivity(0.9, (0.5,), ("a",), (9,), ((0.9,),)).suggest("x"),
                TypeError,
                "`sparsity` must be a number",
            ),
        ),
    ),
    Case(
        "pruning",
        "SparseInferenceReport",
        "result",
        make=lambda: ko.pruning.sparse_inference_report(small_cnn()),
    ),
    Case(
        "pruning",
        "SparseLayer",
        "result",
        make=lambda: ko.pruning.sparse_inference_report(small_cnn()).layers[0],
    ),
    Case(
        "pruning",
        "StepSchedule",
        "class",
        make=lambda: ko.pruning.StepSchedule(0, 100),
        bad=(
            ({"begin_step": 9, "end_step": 9}, ValueError, "`begin_step` must lie before"),
            ({"begin_step": -1, "end_step": 9}, ValueError, "`begin_step` must be an integer"),
            ({"begin_step": 0.5, "end_step": 9}, TypeError, "`begin_step` must be an integer"),
            (
                lambda: fit(ko.pruning.PruneLowMagnitude(schedule=ko.pruning.StepSchedule(0, 99))),
                ValueError,
                "it needs step 99",
            ),
        ),
    ),
    Case(
        "pruning",
        "block_mask",
        "function",
        make=lambda: ko.pruning.block_mask([[0.1, -0.4]], 0.5, block=(1, 1)),
        bad=(
            ({"weights": [0.1], "sparsity": 0.5}, ValueError, "`weights` must have the shape"),
            (
                {"weights": [[0.1]], "sparsity": 0.5, "block": (0, 4)},
                ValueError,
                r"`block\[0\]` must be an integer",
            ),
            (
                {"weights": [[0.1]], "sparsity": 0.5, "block": (1, 0.5)},
                TypeError,
                r"`block\[1\]` must be an integer",
            ),
            (
                {"weights": [[0.1]], "sparsity": 0.5, "pooling": "MEAN"},
                ValueError,
                "`pooling` must be one of",
            ),
        ),
    ),
    Case(
        "pruning",
        "erk_sparsity",
        "function",
        make=lambda: ko.pruning.erk_sparsity([(3, 3, 8, 8), (8, 4)], 0.5),
        bad=(
            ({"shapes": [(3, 3)], "sparsity": 1.0}, ValueError, "`sparsity` must be a number"),
            ({"shapes": [(3, 3)], "sparsity": "x"}, TypeError, "`sparsity` must be a number"),
            ({"shapes": [], "sparsity": 0.5}, ValueError, "`shapes` must hold at least one"),
        ),
    ),
    Case(
        "pruning",
        "keep_masks",
        "function",
        make=lambda: ko.pruning.keep_masks(pruned()),
        bad=(
            ({"model": "model.keras"}, TypeError, "needs a Keras 3 model"),
            ({"model": UNBUILT}, ValueError, "needs a model that is built"),
            (lambda: ko.pruning.keep_masks(small_cnn()), ValueError, "a model with zeros"),
        ),
    ),
    Case(
        "pruning",
        "m_by_n_mask",
        "function",
        make=lambda: ko.pruning.m_by_n_mask([[0.1], [-0.4]], m=1, n=2),
        bad=(
            ({"weights": [[0.1]], "m": 4}, ValueError, r"`m` must be an integer in \[1, 3\]"),
            ({"weights": [[0.1]], "n": 2.5}, TypeError, "`n` must be an integer"),
        ),
    ),
    Case(
        "pruning",
        "magnitude_mask",
        "function",
        make=lambda: ko.pruning.magnitude_mask([0.1, -0.4], 0.5),
    ),
    Case(
        "pruning",
        "sensitivity",
        "function",
        of_model=lambda model: ko.pruning.sensitivity(model, (IMAGES, LABELS), sparsities=[0.5]),
        bad=(
            ({"model": UNBUILT, "data": None}, ValueError, "needs a model that is built"),
            ({"model": "model.keras", "data": None}, TypeError, "needs a Keras 3 model"),
            (
                lambda: ko.pruning.sensitivity(small_cnn(), IMAGES),
                ValueError,
                "`data` must hold labels",
            ),
        ),
    ),
    Case(
        "pruning",
        "sparse_inference_report",
        "function",
        of_model=lambda model: ko.pruning.sparse_inference_report(model),
        bad=(
            ({"model": UNBUILT}, ValueError, "needs a model that is built"),
            ({"model": "model.keras"}, TypeError, "needs a Keras 3 model"),
        ),
    ),
)
