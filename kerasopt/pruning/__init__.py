"""Magnitude pruning as a callback: nothing to wrap, nothing to strip."""

from kerasopt.pruning._callback import PruneLowMagnitude
from kerasopt.pruning._handle import KeptMasks, Masks, keep_masks
from kerasopt.pruning._masks import block_mask, m_by_n_mask, magnitude_mask
from kerasopt.pruning._schedules import ConstantSchedule, FractionSchedule, StepSchedule
from kerasopt.pruning._scopes import erk_sparsity
from kerasopt.pruning._sensitivity import Sensitivity, sensitivity
from kerasopt.pruning._sparse_inference import (
    SparseInferenceReport,
    SparseLayer,
    sparse_inference_report,
)

__all__ = [
    "ConstantSchedule",
    "FractionSchedule",
    "KeptMasks",
    "Masks",
    "PruneLowMagnitude",
    "Sensitivity",
    "SparseInferenceReport",
    "SparseLayer",
    "StepSchedule",
    "block_mask",
    "erk_sparsity",
    "keep_masks",
    "m_by_n_mask",
    "magnitude_mask",
    "sensitivity",
    "sparse_inference_report",
]
