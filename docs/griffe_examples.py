"""Shows the `Example:` of our docstrings as code; the parser only knows the plural."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Makes `Example:` a section of examples, as the Keras docstrings have it."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrites a docstring before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(
                r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE
            )
