"""An exported file in the browser: a local page that classifies photos with it."""

from kerasopt.serving._server import PhotoServer

__all__ = ["PhotoServer"]
