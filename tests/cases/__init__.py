"""One row for every public object: how to make it, how to misuse it, what it promises.

The contract tests run over this table. A new public object needs a new row, nothing else.
"""

from tests.cases._augmentation import AUGMENTATION
from tests.cases._case import IMAGES, Case, photos
from tests.cases._datasets import DATASETS
from tests.cases._distillation import DISTILLATION
from tests.cases._export import EXPORT
from tests.cases._profiling import PROFILING
from tests.cases._pruning import PRUNING
from tests.cases._quantization import QUANTIZATION
from tests.cases._report import REPORT
from tests.cases._serving import SERVING
from tests.cases._training import TRAINING
from tests.cases._transfer import TRANSFER

ROOMS = (
    "augmentation",
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
"""Every room that has names of its own; `callbacks` lists some of them again."""

CASES = (
    *AUGMENTATION,
    *DATASETS,
    *DISTILLATION,
    *EXPORT,
    *PROFILING,
    *PRUNING,
    *QUANTIZATION,
    *REPORT,
    *SERVING,
    *TRAINING,
    *TRANSFER,
)

__all__ = ["CASES", "IMAGES", "ROOMS", "Case", "photos"]
