"""kerasopt: train any Keras 3 image model with `fit` callbacks, ship the TFLite file it became.

The rooms, in the order in which a model meets them:

- `ko.datasets`: a folder of photos as `tf.data` pipelines.
- `ko.augmentation`: augmentation layers inside the model, on in training only.
- `ko.transfer`: a pretrained backbone with a new head; unfreezing that works during `fit`.
- `ko.pruning`: magnitude pruning as one callback.
- `ko.quantization`: quantization-aware training, as a callback or as a transform.
- `ko.distillation`: a teacher's knowledge for a smaller student, as one callback.
- `ko.export`: a TFLite file, run beside the Keras model it came from.
- `ko.profiling`: parameters, zeros, distinct values, bytes and MACs, layer by layer.
- `ko.report`: an HTML page that tells a run, and one that compares several.
- `ko.serving`: an exported file in the browser, on a local page.
- `ko.callbacks`: every callback again, in one place.
- `ko.training`: the session that lets callbacks change a compiled train step, and undo it.

```python
import kerasopt as ko
```

Importing kerasopt loads none of this: a room is imported when it is first used. Keras, once it is
loaded, learns the names of the layers that saved models may hold.
"""

import importlib
from typing import Any

import wrapt

from kerasopt._saved_classes import announce
from kerasopt._version import __version__

_ROOMS = (
    "augmentation",
    "callbacks",
    "datasets",
    "distillation",
    "export",
    "profiling",
    "pruning",
    "quantization",
    "report",
    "serving",
    "training",
    "transfer",
)

__all__ = ["__version__", *_ROOMS]  # noqa: PLE0604 - the rooms are names, see __getattr__

wrapt.register_post_import_hook(announce, "keras")


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"kerasopt.{name}")
    raise AttributeError(f"module 'kerasopt' has no attribute {name!r}; it has {', '.join(_ROOMS)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})
