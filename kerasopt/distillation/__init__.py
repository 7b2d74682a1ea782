"""A teacher's knowledge for a smaller student, as one callback of an ordinary `fit`."""

from kerasopt.distillation._callback import Distill
from kerasopt.distillation._losses import attention_loss, dist_loss, kl_loss, mse_loss
from kerasopt.distillation._targets import cache_targets

__all__ = ["Distill", "attention_loss", "cache_targets", "dist_loss", "kl_loss", "mse_loss"]
