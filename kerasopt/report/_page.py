"""Templates to HTML and text, and the one script, which the page's policy names by its hash."""

import base64
import functools
import hashlib
import importlib.resources
import json
from typing import Any

import jinja2
from markupsafe import Markup, escape

from kerasopt.report import _format as fmt

_FORMATS = ("percent", "size", "milliseconds", "integer", "layer_name")


def page(template: str, **context: Any) -> str:
    """Returns a complete HTML document; every text of the context is escaped."""
    return _templates().get_template(template).render(script=_script(), **context)


def text(template: str, **context: Any) -> str:
    """Returns text that is no HTML, such as a program; its values stand in it as they are."""
    return _templates().get_template(template).render(**context)


def _script() -> Markup:
    """Returns the script between its tags, to the letter: its hash is that of this text."""
    folder = importlib.resources.files("kerasopt.report") / "templates"
    # A tag cannot be escaped inside of a script, so the file must hold none; a test checks it.
    return Markup(folder.joinpath("page.js").read_text(encoding="utf-8"))  # noqa: S704


def _sha256(text: str) -> str:
    """Returns the hash of a script as a content security policy names it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


@functools.cache
def _templates() -> jinja2.Environment:
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("kerasopt.report", "templates"),
        autoescape=jinja2.select_autoescape(("html.j2",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update({name: getattr(fmt, name) for name in _FORMATS})
    templates.filters.update(code=_code, sha256=_sha256, quoted=_quoted)
    return templates


def _quoted(name: str) -> str:
    """Returns a text as all four languages write it; they have JSON's quotes and escapes."""
    return json.dumps(name, ensure_ascii=False)


def _code(text: str) -> Markup:
    """Returns escaped text with what stands between backticks set as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # a lone backtick is only a character
        return escape(text)
    tagged = (Markup("<code>{}</code>").format(p) if i % 2 else p for i, p in enumerate(parts))
    return Markup("").join(tagged)
