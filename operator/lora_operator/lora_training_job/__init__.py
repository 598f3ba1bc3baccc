"""The LoRATrainingJob pass: check, freeze, train in a Job, read the result, serve it where that was asked for."""

from .reconcile import reconcile

__all__ = ["reconcile"]
