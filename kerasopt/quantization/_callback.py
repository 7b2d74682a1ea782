"""`QuantizeAware`: quantization-aware training of an unmodified model inside `fit`."""

from typing import Any

from kerasopt._backend import keras
from kerasopt._layer_filter import LayerFilter, walk_layers
from kerasopt._validation import check_choice
from kerasopt.quantization._twin import build_twin, float_operations
from kerasopt.training import Moment, TrainingCallback, check_moment

_ORDER = 100
"""The forward pass is the innermost hook: whatever else changes it sees the quantized model."""


class QuantizeAware(TrainingCallback):
    """Trains a model as its int8 TFLite file will compute, from a moment of `fit` on.

    From `start` on the forward pass goes through a quantization-aware graph around the model's
    own layers. The model itself stays as it is, and saves and loads as before; afterwards
    `quantized_model` holds that graph with the ranges it learned, to be exported.

    Ranges start from the first batch they see. In the last part BatchNormalization uses its
    moving statistics, as the file will, so that the ranges settle on what the file computes.

    Args:
        scheme: `"int8"`.
        start: moment at which it begins. A float is a fraction of training, an int an epoch.
            Default 0.0; 0.7 is usual behind pruning or unfreezing.
        freeze_batch_norm: moment from which BatchNormalization layers keep their statistics and
            weights, or `None` (default) for the middle between `start` and the end.
        layers: which layers to quantize, as in `quantize_aware`.
        verbose: 1 prints a line when it begins and when statistics freeze.

    Attributes:
        quantized_model: the quantization-aware model, sharing its layers with the trained one;
            `None` before `fit`.

    Raises:
        TypeError: a moment is not a number.
        ValueError: at construction for a moment that is none, before the first batch when the
            model is not built, has no graph, is quantized already, or `start` lies outside
            training.

    Example:
        >>> QuantizeAware(start=0.7).start
        0.7

    Reference:
        Jacob et al., arXiv:1712.05877; Krishnamoorthi, Quantizing deep convolutional networks
        for efficient inference, arXiv:1806.08342 (freezing batch normalization late).
    """

    def __init__(
        self,
        scheme: str = "int8",
        *,
        start: Moment = 0.0,
        freeze_batch_norm: Moment | None = None,
        layers: LayerFilter = None,
        verbose: int = 0,
    ) -> None:
        super().__init__()
        check_choice("scheme", scheme, ("int8",))
        check_moment("start", start)
        if freeze_batch_norm is not None:
            check_moment("freeze_batch_norm", freeze_batch_norm)
        self.scheme = scheme
        self.start = start
        self.freeze_batch_norm = freeze_batch_norm
        self.layers = layers
        self.verbose = verbose
        self.quantized_model: Any = None
        self._begun = self._frozen = False
        self._start = self._freeze = 0.0

    def begin(self) -> None:
        """Resolves the moments and builds the quantization-aware graph."""
        self._start = self.timeline.resolve(self.start, name="start")
        if self._start >= self.timeline.epochs:
            raise ValueError(
                "`start` must lie before the end of training, so that ranges are learned. "
                f"Received: start={self.start!r} with {self.timeline.epochs} epochs."
            )
        self._freeze = (self._start + self.timeline.epochs) / 2
        if self.freeze_batch_norm is not None:
            self._freeze = self.timeline.resolve(self.freeze_batch_norm, name="freeze_batch_norm")
        self._begun = self._frozen = False
        self.quantized_model = build_twin(self.model, layers=self.layers)

    def before_batch(self, epoch: int, batch: int) -> None:
        """Switches the forward pass, and later the BatchNormalization, when their moments come."""
        if not self._begun and self.timeline.reached(self._start, epoch, batch):
            self._begun = True
            twin = self.quantized_model
            self.session.hook(self, "call", lambda _: twin.call, order=_ORDER)
            self.session.retrace(evaluation=True)
            self._say("quantization-aware training begins")
        if not self._frozen and self.timeline.reached(max(self._freeze, self._start), epoch, batch):
            self._frozen = True
            if self._freeze_statistics():
                self.session.retrace()
                self._say("batch normalization frozen")

    def end(self) -> None:
        """Warns when training ended before the quantization began."""
        if not self._begun:
            self.quantized_model = None
            raise RuntimeError(
                "Training ended before quantization-aware training began "
                f"(start={self.start!r}): no ranges were learned. Start earlier or train longer."
            )

    @property
    def float_operations(self) -> tuple[tuple[str, str], ...]:
        """What stays float in the file, as `(operation, reason)`; empty before `fit`."""
        return () if self.quantized_model is None else float_operations(self.quantized_model)

    def _freeze_statistics(self) -> bool:
        norms = [
            layer
            for _, layer in walk_layers(self.model)
            if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        ]
        for layer in norms:
            layer.trainable = False
            self.session.on_release(self, _opener(layer))
        return bool(norms)

    def _say(self, text: str) -> None:
        self.mark("quantize", text)
        if self.verbose:
            print(f"\nQuantizeAware: {text}")  # noqa: T201


def _opener(layer: Any) -> Any:
    def reopen() -> None:
        layer.trainable = True

    return reopen
