"""Self-contained HTML pages that tell a run and compare several, and two figures on their own."""

from kerasopt.report._comparison import write_comparison
from kerasopt.report._data import Event, FileRow, Flip, Mistake, RunReport, Signature
from kerasopt.report._environment import environment
from kerasopt.report._figures import plot_confusion, plot_history
from kerasopt.report._metrics import confusion_matrix
from kerasopt.report._render import render, write_report

__all__ = [
    "Event",
    "FileRow",
    "Flip",
    "Mistake",
    "RunReport",
    "Signature",
    "confusion_matrix",
    "environment",
    "plot_confusion",
    "plot_history",
    "render",
    "write_comparison",
    "write_report",
]
