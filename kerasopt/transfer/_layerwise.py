"""One base learning rate, times a factor for each depth of the model."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from kerasopt._layer_filter import select_layers, walk_layers
from kerasopt._validation import check_choice, check_number
from kerasopt.training import TrainingCallback
from kerasopt.transfer._blocks import blocks
from kerasopt.transfer._classifier import split_layers


@dataclasses.dataclass(frozen=True)
class RateGroup:
    """Layers that share a learning rate.

    Args:
        name: the block, the layer, the layers of the head, or the regex of `lr_factors`.
        layers: its layers with weights, in model order.
        factor: what the base learning rate is multiplied by.
        rate: the learning rate now, `None` while the model is not compiled.
    """

    name: str
    layers: tuple[Any, ...]
    factor: float
    rate: float | None

    @property
    def num_variables(self) -> int:
        """Number of weights of its layers, those that never train among them."""
        return sum(len(layer.weights) for layer in self.layers)

    @property
    def num_training(self) -> int:
        """Number of weights that train now."""
        return sum(len(layer.trainable_weights) for layer in self.layers)


class RateTable(tuple[RateGroup, ...]):
    """The learning rates of a model, from the input to the head; prints as a table."""

    __slots__ = ()

    def __str__(self) -> str:
        rows = [("layers", "factor", "rate now", "variables", "training")]
        rows += [
            (
                group.name,
                f"{group.factor:.4g}",
                "-" if group.rate is None else f"{group.rate:.3g}",
                str(group.num_variables),
                str(group.num_training),
            )
            for group in self
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        return "\n".join(
            f"{row[0]:<{widths[0]}}"
            + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
            for row in rows
        )


class LayerwiseLearningRate(TrainingCallback):
    """Gives the layers near the input smaller learning rates than the head.

    `rate(n) = learning_rate · decay^n`, with `n = 0` for the head, 1 for the last block of the
    backbone, 2 for the block before it, and so on. General features near the input keep what
    pretraining gave them, specific ones near the head learn faster.

    The optimizer's own learning rate is the base and is not touched, so that whatever drives it
    drives all rates: `ReduceLROnPlateau`, `LearningRateScheduler`, a `LearningRateSchedule` with
    warm-up, `model.optimizer.learning_rate = ...`. Decoupled weight decay follows the rate of each
    variable. Nothing is kept in the model or its file, and nothing has to be: a run that is
    restored or goes on with a reloaded model has the same rates when it is given the callback.

    Args:
        decay: Float in (0, 1], the factor from one depth to the next towards the input. 1/2.6 is
            the value of ULMFiT; 0.65 to 0.9 are usual. `None` with `lr_factors` alone.
        per: what counts as a depth. `"block"`: the backbone's blocks (see `ko.transfer.blocks`);
            `"layer"`: each of its layers that has a kernel, where a normalization behind one
            counts with it. The head is one depth in both.
        lr_factors: a dict of factors >= 0 by a regex on the layer's name or path. A given factor
            takes the place of that of the depth; of several regexes that find a layer the last
            one counts. With the factor 0 a layer's weights are left alone, bit for bit.
        verbose: 1 prints the table of the rates when `fit` begins.

    Raises:
        TypeError: `decay` is not a number, or `lr_factors` not a dict of numbers by regexes.
        ValueError: at construction, when a number lies outside its range or there is neither
            `decay` nor `lr_factors`; before the first batch, when a regex finds no layer with
            weights (the nearest names are offered), the model has no backbone for `decay`, or it
            was compiled with a `MultiOptimizer`.

    Example:
        >>> from kerasopt._backend import keras
        >>> dense = keras.layers.Dense
        >>> parts = [dense(8, name="block1_dense"), dense(8, name="block2_dense")]
        >>> model = keras.Sequential([keras.Input((4,)), *parts, dense(2, name="logits")])
        >>> model.compile(keras.optimizers.SGD(0.1), "mse")
        >>> print(LayerwiseLearningRate(0.5).table(model))
        layers  factor  rate now  variables  training
        block1    0.25     0.025          2         2
        block2     0.5      0.05          2         2
        logits       1       0.1          2         2

    Reference:
        Clark et al., ELECTRA, arXiv:2003.10555 (layer-wise learning-rate decay); Howard & Ruder,
        Universal Language Model Fine-tuning for Text Classification, arXiv:1801.06146
        (discriminative fine-tuning). In both the depths are a transformer's or LSTM's layers;
        blocks are what is comparable in an image network.
    """

    def __init__(
        self,
        decay: float | None = None,
        *,
        per: str = "block",
        lr_factors: Mapping[str, float] | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__()
        if decay is None and not lr_factors:
            raise ValueError(
                "`decay` must be a number in (0, 1] unless `lr_factors` is given. "
                "Received: decay=None, and no lr_factors."
            )
        if decay is not None:
            decay = check_number("decay", decay, low=0.0, high=1.0, low_open=True)
        check_choice("per", per, ("block", "layer"))
        self.decay = decay
        self.per = per
        self.lr_factors = _check_factors(lr_factors)
        self.verbose = verbose

    def begin(self) -> None:
        """Hands the factors of all weights to the optimizer, of those that are frozen too."""
        table = self.table(self.model)
        # A weight that several layers share has the rate of the one nearest to the head.
        factors = {
            id(weight): (weight, group.factor)
            for group in table
            for layer in group.layers
            for weight in layer.weights
        }
        self.session.scale_rates(self, [pair for pair in factors.values() if pair[1] != 1.0])
        self.session.retrace()
        low, high = min(group.factor for group in table), max(group.factor for group in table)
        self.mark("other", f"learning rates × {low:.3g} to {high:.3g}")
        if self.verbose:
            print(f"\n{table}")  # noqa: T201

    def table(self, model: Any) -> RateTable:
        """Returns the rates that the layers of a model have, or would have, in `fit`.

        Args:
            model: a built Keras model, compiled or not.

        Returns:
            A tuple of `RateGroup`, from the input to the head and then the groups of
            `lr_factors`; `print` shows names, factors, rates and numbers of weights.

        Raises:
            ValueError: as in `fit`.
        """
        base = _base_rate(model)
        given, replaced = self._given(model), set[int]()
        for layers in given.values():
            replaced |= {id(layer) for layer in layers}
        groups = [
            (name, [layer for layer in layers if id(layer) not in replaced], factor)
            for name, layers, factor in self._depths(model)
        ]
        groups += [(regex, layers, self.lr_factors[regex]) for regex, layers in given.items()]
        return RateTable(
            RateGroup(name, tuple(layers), factor, None if base is None else base * factor)
            for name, layers, factor in groups
            if layers
        )

    def _given(self, model: Any) -> dict[str, list[Any]]:
        """Finds the layers of each regex; a layer that several find goes to the last."""
        weighted = [(path, layer) for path, layer in walk_layers(model) if layer.weights]
        owner: dict[int, str] = {}
        for regex in self.lr_factors:
            found = select_layers(weighted, regex, argument="lr_factors")
            owner.update({id(layer): regex for _, layer in found})
        return {
            regex: [layer for _, layer in weighted if owner.get(id(layer)) == regex]
            for regex in self.lr_factors
        }

    def _depths(self, model: Any) -> list[tuple[str, list[Any], float]]:
        backbone, head = split_layers(model)
        weighted = [layer for layer in backbone if layer.weights]
        head = [layer for layer in head if layer.weights]
        if self.decay is None:
            depths, decay = [("backbone", weighted)] if weighted else [], 1.0
        elif not weighted:
            raise ValueError(
                "`decay` needs a model with a backbone, layers with weights before the head. "
                f"Received: model={model.name!r}, in which the head is everything. "
                "Give factors by the layers' names with `lr_factors`."
            )
        else:
            depths = _blocks(model) if self.per == "block" else _kernels(weighted)
            decay = self.decay
        found = [
            (name, layers, decay ** (len(depths) - place))
            for place, (name, layers) in enumerate(depths)
        ]
        return [*found, (", ".join(layer.name for layer in head), head, 1.0)]


def _base_rate(model: Any) -> float | None:
    optimizer: Any = getattr(model, "optimizer", None)
    if hasattr(optimizer, "optimizers"):
        raise ValueError(
            "`optimizer` must be one with one learning rate, which a MultiOptimizer has not. "
            f"Received: optimizer={optimizer.name!r}. Compile with one optimizer and give "
            "groups of layers their rates with `lr_factors`."
        )
    return None if optimizer is None else float(optimizer.learning_rate)


def _check_factors(given: Any) -> dict[str, float]:
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not all(isinstance(regex, str) for regex in given):
        raise TypeError(
            "`lr_factors` must be a dict of factors by regexes, such as {'bias|norm': 0.1}. "
            f"Received: lr_factors={given!r}."
        )
    return {
        regex: check_number(f"lr_factors[{regex!r}]", factor, low=0.0)
        for regex, factor in given.items()
    }


def _blocks(model: Any) -> list[tuple[str, list[Any]]]:
    return [(b.name, [layer for layer in b.layers if layer.weights]) for b in blocks(model)]


def _kernels(weighted: list[Any]) -> list[tuple[str, list[Any]]]:
    """Groups layers so that each group begins with one that has a kernel."""
    groups: list[tuple[str, list[Any]]] = []
    for layer in weighted:
        if not groups or any(len(weight.shape) > 1 for weight in layer.weights):
            groups.append((layer.name, []))
        groups[-1][1].append(layer)
    return groups
