"""`PhotoServer`: a page on this machine alone, in which an exported file classifies photos."""

import base64
import contextlib
import dataclasses
import hashlib
import http.server
import json
import os
import pathlib
import sys
import threading
from types import TracebackType
from typing import Any

import jinja2

from kerasopt._litert_js import FILES, FOLDER, VERSION, check_installed
from kerasopt._validation import check_int
from kerasopt.serving._description import describe, find_file, to_json

_HOST = "127.0.0.1"
_PAGE = pathlib.Path(__file__).parent / "page"
_SCRIPTS = ("classify.js", "resize.js", "scores.js")
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".tflite": "application/octet-stream",
    ".wasm": "application/wasm",
}


class PhotoServer:
    """Serves a page in which a TFLite file classifies photos, inside the browser.

    The page runs the file itself with LiteRT.js: photos never leave it. It is served on 127.0.0.1
    alone and loads nothing from anywhere else.

    Args:
        run: a `.tflite` file, or the folder of a run, whose `model.tflite` it is. Class names come
            from its metadata, else from `NAME.labels.txt` or `labels.txt` beside it.
        port: port to listen on, in [0, 65535]; 0 takes any that is free. Default 8765.

    Attributes:
        description: what the page knows of the file, as a dict.

    Raises:
        TypeError: `port` is no integer.
        ValueError: there is no such file, it is no classifier of photos with `uint8` or `float32`
            inputs, or its labels do not match; or `port` is out of range.

    Example:
        >>> with PhotoServer("run") as server:  # doctest: +SKIP
        ...     print(server.url)
        ...     server.wait()
    """

    def __init__(self, run: str | os.PathLike[str], *, port: int = 8765) -> None:
        self._port = check_int("port", port, low=0, high=65535)
        described, content = describe(find_file(run))
        self.description: dict[str, Any] = to_json(described)
        self._content = content
        self._server: http.server.ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Address of the page, while it is served."""
        return f"http://{_HOST}:{self._listening().server_address[1]}/"

    def start(self) -> None:
        """Begins to serve, in a thread of its own.

        Raises:
            OSError: the port is taken.
            RuntimeError: LiteRT.js is not in the package; the message has the command to run.
        """
        check_installed()
        if self._server is not None:
            return
        try:
            server = _Server((_HOST, self._port), _Handler)
        except OSError as error:
            raise OSError(
                error.errno,
                f"`port` must be free. Received: port={self._port}, {error.strerror}. "
                "Pass another one, or 0 for any that is free",
            ) from error
        server.answers = _answers(self.description, self._content)
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Returns when the server is closed, or at Ctrl-C."""
        with contextlib.suppress(KeyboardInterrupt):
            while self._thread is not None and self._thread.is_alive():
                self._thread.join(0.5)

    def close(self) -> None:
        """Stops serving and gives the port back; a second call does nothing."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
        self._server = self._thread = None

    def __enter__(self) -> "PhotoServer":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _listening(self) -> http.server.ThreadingHTTPServer:
        if self._server is None:
            raise RuntimeError(
                "The server must be started first. Received: one that is not. "
                "Call start(), or use it in a `with` block."
            )
        return self._server


@dataclasses.dataclass(frozen=True)
class _Answer:
    """What a path stands for: bytes, or a file of the package."""

    kind: str
    content: bytes | pathlib.Path
    policy: str = ""

    def read(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()


def _answers(description: dict[str, Any], model: bytes) -> dict[str, _Answer]:
    """Returns the whole site. A path that is not a key here does not exist, whatever it says."""
    page, policy = _render(description)
    config = json.dumps({**description, "runtime": VERSION}).encode()
    return {
        "/": _Answer(_TYPES[".html"], page, policy),
        "/model.json": _Answer(_TYPES[".json"], config),
        "/model.tflite": _Answer(_TYPES[".tflite"], model),
        **{f"/{name}": _Answer(_TYPES[".js"], _PAGE / name) for name in _SCRIPTS},
        **{
            f"/litert_js/{name}": _Answer(_TYPES[pathlib.PurePath(name).suffix], FOLDER / name)
            for name in FILES
        },
    }


def _render(description: dict[str, Any]) -> tuple[bytes, str]:
    """Returns the page, and a policy that allows nothing but what it brings along."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("kerasopt.serving", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (_PAGE / "style.css").read_text(encoding="utf-8")
    page = templates.get_template("page.html.j2").render(
        model=description, style=style, runtime=VERSION
    )
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = "; ".join(
        (
            "default-src 'none'",
            "script-src 'self' 'wasm-unsafe-eval'",
            f"style-src 'sha256-{digest}'",
            "img-src 'self' blob: data:",
            "connect-src 'self'",
            "worker-src 'self' blob:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
    return page.encode(), policy


class _Server(http.server.ThreadingHTTPServer):
    """Knows what it serves."""

    daemon_threads = True
    answers: dict[str, _Answer]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Reports what went wrong, but not a reader who went away in the middle."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET and HEAD from one table; there are no files to find a way to."""

    server: _Server
    server_version = "kerasopt"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = 60.0
    """Seconds after which a connection that says nothing is closed."""

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Says nothing: the terminal is the command's."""

    def end_headers(self) -> None:
        # The first two make the page cross-origin isolated, without which there are no threads.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def _answer(self, *, body: bool) -> None:
        if not self._is_meant():
            self.send_error(421)
            return
        answer = self.server.answers.get(self.path.split("?", 1)[0])
        if answer is None:
            self.send_error(404)
            return
        content = answer.read()
        self.send_response(200)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(content)))
        if answer.policy:
            self.send_header("Content-Security-Policy", answer.policy)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def _is_meant(self) -> bool:
        """Refuses names of other sites that lead here: they would make the page theirs."""
        port = self.server.server_address[1]
        return self.headers.get("Host") in {f"{host}:{port}" for host in (_HOST, "localhost")}
