"""`QuantizeAware`: quantization-aware training of an unmodified model inside `fit`."""

import inspect
from functools import partial
from typing import Any

from kerasopt._backend import keras
from kerasopt._layer_filter import LayerFilter
from kerasopt.quantization._calibrate import calibrate
from kerasopt.quantization._checks import check_finite_weights
from kerasopt.quantization._observers import check_observer
from kerasopt.quantization._ranges import RangeState
from kerasopt.quantization._samples import Batch, collect
from kerasopt.quantization._schemes import LayerSchemes, SchemeLike, check_scheme, every_layer
from kerasopt.quantization._twin import build_twin, float_operations
from kerasopt.training import Moment, TrainingCallback, check_moment, ride_in_checkpoints

_ORDER = 100
"""The forward pass is the innermost hook: whatever else changes it sees the quantized model."""


class QuantizeAware(TrainingCallback):
    """Trains a model as its int8 TFLite file will compute, from a moment of `fit` on.

    From `start` on the forward pass goes through a quantization-aware graph around the model's
    own layers. The model itself stays as it is, and saves and loads as before; afterwards
    `quantized_model` holds that graph with the ranges it learned, to be exported.

    Ranges start from `calibration`, else from the first batches, whose mean they are before they
    become a moving average. Towards the end BatchNormalization uses its moving statistics, as the
    file will, so that the ranges settle on what the file computes; then they stay as they are,
    and only the weights train on. Each of these moments costs one new trace of the train step.

    A run that `BackupAndRestore` goes on with has the ranges of the interrupted one: they stand
    in its weights file, and in all others that are written by `save_weights` during `fit`.

    Args:
        scheme: `"int8"`, `"int16x8"`, `"int8_weights"`, a `Scheme`, or a dict of regexes and
            these, as in `quantize_aware`.
        start: moment at which it begins. A float is a fraction of training, an int an epoch.
            Default 0.0; 0.7 is usual behind pruning or unfreezing.
        freeze_batch_norm: moment from which BatchNormalization layers keep their statistics, or
            `None` (default) for the middle between `start` and the end. Their scale and offset
            train on.
        freeze_ranges: moment from which ranges stay as they are, or `None` (default) for the last
            quarter between `start` and the end. 1.0 is never.
        calibration: data to start the ranges from, in the forms that `calibrate` takes. The
            samples are read before the first batch and kept until `start`.
        observer: how `calibration` is looked at, as in `calibrate`. Default `"moving_average"`.
        layers: which layers to quantize, as in `quantize_aware`.
        verbose: 1 prints a line when it begins and when something freezes.

    Attributes:
        quantized_model: the quantization-aware model, sharing its layers with the trained one;
            `None` before `fit`.

    Raises:
        TypeError: a moment is not a number, or the scheme none of these.
        ValueError: at construction for a moment that is none, or an unknown scheme or observer;
            before the first batch when the model is not built, does not run on symbolic inputs, has
            a `call` without `training`, has weights that are not finite, is quantized already, a
            regex finds no layer, `start` lies outside training, or calibration data do not fit.

    Example:
        >>> QuantizeAware(start=0.7).start
        0.7

    Reference:
        Jacob et al., arXiv:1712.05877; Krishnamoorthi, Quantizing deep convolutional networks
        for efficient inference, arXiv:1806.08342 (freezing batch normalization late).
    """

    def __init__(
        self,
        scheme: SchemeLike = "int8",
        *,
        start: Moment = 0.0,
        freeze_batch_norm: Moment | None = None,
        freeze_ranges: Moment | None = None,
        calibration: Any = None,
        observer: str = "moving_average",
        layers: LayerFilter = None,
        verbose: int = 0,
    ) -> None:
        super().__init__()
        check_scheme(scheme)
        check_moment("start", start)
        if freeze_batch_norm is not None:
            check_moment("freeze_batch_norm", freeze_batch_norm)
        if freeze_ranges is not None:
            check_moment("freeze_ranges", freeze_ranges)
        check_observer(observer)
        self.scheme = scheme
        self.start = start
        self.freeze_batch_norm = freeze_batch_norm
        self.freeze_ranges = freeze_ranges
        self.calibration = calibration
        self.observer = observer
        self.layers = layers
        self.verbose = verbose
        self.quantized_model: Any = None
        self._ranges = RangeState()
        self._phases: list[tuple[float, str]] = []
        self._remove: Any = None
        self._samples: list[Batch] | None = None
        self._begun = False

    def prepare(self) -> None:
        """Lets the ranges ride in this `fit`'s checkpoints."""
        self._ranges = RangeState()
        self._remove = ride_in_checkpoints(
            self.model, "kerasopt_ranges", self._ranges.save, self._ranges.load
        )

    def begin(self) -> None:
        """Resolves the moments and builds the quantization-aware graph."""
        start = self.timeline.resolve(self.start, name="start")
        if start >= self.timeline.epochs:
            raise ValueError(
                "`start` must lie before the end of training, so that ranges are learned. "
                f"Received: start={self.start!r} with {self.timeline.epochs} epochs."
            )
        self._phases = [
            (start, "start"),
            (self._freeze_at(start, 1 / 2, "freeze_batch_norm"), "freeze_batch_norm"),
            (self._freeze_at(start, 3 / 4, "freeze_ranges"), "freeze_ranges"),
        ]
        if self._phases[2][0] <= start and self.calibration is None:
            raise ValueError(
                "`freeze_ranges` must lie behind `start`, so that ranges are learned. "
                f"Received: start={self.start!r}, freeze_ranges={self.freeze_ranges!r}. "
                "Freeze them later, or give `calibration`."
            )
        self._begun = False
        check_finite_weights(self.model)
        _check_takes_training(self.model)
        schemes = LayerSchemes(self.model, self.scheme, self.layers)
        self.quantized_model = build_twin(self.model, schemes)
        self._samples = None
        if self.calibration is not None:  # read now, so that data that do not fit are told now
            self._samples = collect(self.calibration, self.quantized_model, name="calibration")
        self._ranges.attach(self.quantized_model)
        if self._remove is not None:
            self.session.on_release(self, self._remove)

    def _freeze_at(self, start: float, part: float, name: str) -> float:
        moment = getattr(self, name)
        if moment is None:
            return start + part * (self.timeline.epochs - start)
        return max(start, self.timeline.resolve(moment, name=name))

    def before_batch(self, epoch: int, batch: int) -> None:  # noqa: ARG002
        """Switches the forward pass, and later freezes, when the moments come."""
        if self._begun:
            self._ranges.restore()  # where another callback loaded weights meanwhile
        due = [name for position, name in self._phases if self.reached(position)]
        self._phases = [phase for phase in self._phases if phase[1] not in due]
        if not due:
            return
        done = [getattr(self, f"_on_{name}")() for name in due]
        # One new trace for all that came due; evaluation changes with the forward pass alone.
        if any(done):
            self.session.retrace(evaluation="start" in due)

    def end(self) -> None:
        """Raises RuntimeError when training ended before the quantization began."""
        # A run that was interrupted behind its last batch has none left, and its ranges are there.
        self._begun = self._begun or self._ranges.restore()
        if not self._begun:
            self.quantized_model = None
            raise RuntimeError(
                "Training ended before quantization-aware training began "
                f"(start={self.start!r}): no ranges were learned. Start earlier or train longer."
            )

    @property
    def begun(self) -> bool:
        """Whether quantization-aware training runs, or ran in the last `fit`."""
        return self._begun

    @property
    def float_operations(self) -> tuple[tuple[str, str], ...]:
        """What stays float in the file, as `(operation, reason)`; empty before `fit`."""
        return () if self.quantized_model is None else float_operations(self.quantized_model)

    def _on_start(self) -> bool:
        self._begun = True
        twin = self.quantized_model
        if not self._ranges.restore() and self._samples is not None:
            calibrate(twin, self._samples, self.observer)
        self._samples = None
        self.session.hook(self, "call", lambda _: twin.call, order=_ORDER)
        self._say("quantization-aware training begins")
        return True

    def _on_freeze_batch_norm(self) -> bool:
        norms = [
            layer
            for _, layer in every_layer(self.model)
            if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        ]
        for layer in norms:
            # Not `trainable`, which would stand in files that are saved meanwhile.
            vars(layer)["call"] = _in_inference_mode(layer)
            self.session.on_release(self, partial(vars(layer).pop, "call", None))
        if norms:
            self._say("batch normalization frozen")
        return bool(norms)

    def _on_freeze_ranges(self) -> bool:
        if not all(layer.has_range for layer in self._ranges.layers):
            # Of several steps in one execution the first may be that of both moments.
            self._phases.append((0.0, "freeze_ranges"))
            return False
        for layer in self._ranges.layers:
            layer.freeze()
            self.session.on_release(self, partial(setattr, layer, "frozen", False))
        if self._ranges.layers:
            self._say("ranges frozen")
        return bool(self._ranges.layers)

    def _say(self, text: str) -> None:
        self.mark("quantize", text)
        if self.verbose:
            print(f"\nQuantizeAware: {text}")  # noqa: T201


def _check_takes_training(model: Any) -> None:
    if "training" not in inspect.signature(type(model).call).parameters:
        raise ValueError(
            "Ranges are learned in training alone, of which Keras tells a model whose `call` takes "
            f"`training`. Received: {model.name!r}, a {type(model).__name__} without it. "
            "Write `def call(self, inputs, training=None)`."
        )


def _in_inference_mode(layer: Any) -> Any:
    def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:  # noqa: ARG001
        return type(layer).call(layer, inputs, training=False, mask=mask)

    return call
