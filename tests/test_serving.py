"""The server of the page: what it knows of a file, what it answers, and to whom."""

import http.client
import json
import pathlib
import re
import socket

import keras
import numpy as np
import pytest

from kerasopt import _litert_js
from kerasopt.export import Metadata, to_tflite
from kerasopt.serving import PhotoServer
from tests.models import small_cnn, stripes

NAMES = ("north west", "north east", "süd-west", "<b>south</b> east")
installed = pytest.mark.skipif(
    not _litert_js.is_installed(), reason="needs LiteRT.js in the package (make web)"
)


def write(folder, name="model.tflite", model=None, **options):
    to_tflite(small_cnn() if model is None else model, folder / name, **options)
    return folder / name


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    metadata = Metadata(name="<i>Quarters</i>", labels=NAMES)
    x = stripes(16)[0]
    write(folder, quantize="int8", representative_data=x, metadata=metadata, verify=False)
    return folder


@pytest.fixture(scope="module")
def server(run):
    if not _litert_js.is_installed():
        pytest.skip("needs LiteRT.js in the package (make web)")
    with PhotoServer(run, port=0) as server:
        yield server


def ask(server, path, method="GET", **headers):
    port = int(server.url.split(":")[2].strip("/"))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer, content


# What it knows


def described(*arguments, **options):
    return PhotoServer(*arguments, **options).description


def test_a_run_is_its_folder_or_its_file(run):
    known = described(run)
    assert known == described(run / "model.tflite") == described(str(run))
    assert known["title"] == "<i>Quarters</i>"
    assert known["size"] == (run / "model.tflite").stat().st_size
    assert (known["height"], known["width"], known["channels"]) == (12, 12, 3)
    assert (known["input_dtype"], known["output_dtype"]) == ("uint8", "float32")
    assert known["labels"] == NAMES
    assert known["activation"] == "softmax"


@pytest.mark.parametrize("beside", ["flowers.labels.txt", "labels.txt", None])
def test_labels_beside_the_file(tmp_path, beside):
    file = write(tmp_path, "flowers.tflite")
    if beside:
        (tmp_path / beside).write_text("a\nb\nc\nd\n", encoding="utf-8")
    known = described(file)
    assert known["title"] == "flowers"
    assert known["named"] is bool(beside)
    assert known["labels"] == (tuple("abcd") if beside else tuple(f"class {i}" for i in range(4)))


def test_labels_that_do_not_match(tmp_path):
    file = write(tmp_path)
    (tmp_path / "labels.txt").write_text("a\nb\n", encoding="utf-8")
    with pytest.raises(ValueError, match="Received: 2 names, 4 outputs"):
        PhotoServer(file)


def head(units, activation=None, channels=3):
    inputs = keras.Input((8, 10, channels))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    return keras.Model(inputs, keras.layers.Dense(units, activation=activation)(x))


@pytest.mark.parametrize(
    ("units", "last", "options", "expected"),
    [
        (3, None, {}, "softmax"),
        (3, "softmax", {}, "none"),
        (3, "sigmoid", {}, "none"),
        (3, None, {"probabilities": True}, "none"),
        (1, None, {}, "sigmoid"),
        (1, "sigmoid", {}, "none"),
        (2, None, {"metadata": Metadata(score_calibration=[(1.0, 2.0, 3.0), ()])}, "calibration"),
    ],
)
def test_what_is_still_to_be_done_to_the_outputs(tmp_path, units, last, options, expected):
    known = described(write(tmp_path, model=head(units, last), **options))
    assert known["activation"] == expected
    assert (known["height"], known["width"]) == (8, 10)
    assert known["calibration"] == (((1.0, 2.0, 3.0), ()) if expected == "calibration" else ())


def test_normalization_is_that_of_the_metadata(tmp_path):
    plain = described(write(tmp_path, model=head(2)))
    assert (plain["mean"], plain["std"]) == ((0.0,) * 3, (1.0,) * 3)
    metadata = Metadata(mean=(1.0, 2.0, 3.0), std=127.5)
    known = described(write(tmp_path, model=head(2), metadata=metadata))
    assert (known["mean"], known["std"]) == ((1.0, 2.0, 3.0), (127.5,) * 3)
    grey = described(write(tmp_path, model=head(2, channels=1), metadata=Metadata(std=255.0)))
    assert (grey["mean"], grey["std"], grey["channels"]) == ((0.0,), (255.0,), 1)


def test_files_that_are_no_classifiers(tmp_path):
    inputs = keras.Input((8, 8, 3))
    with pytest.raises(ValueError, match=r"Received: inputs .*, outputs \[\(1, 6, 6, 2\)\]"):
        PhotoServer(write(tmp_path, model=keras.Model(inputs, keras.layers.Conv2D(2, 3)(inputs))))
    with pytest.raises(ValueError, match="Export it with batch_size=1"):
        PhotoServer(write(tmp_path, model=head(2), batch_size=2))
    (tmp_path / "broken.tflite").write_bytes(b"TFL3" * 10)
    with pytest.raises(ValueError, match="must be a whole TFLite file"):
        PhotoServer(tmp_path / "broken.tflite")
    with pytest.raises(ValueError, match=r"with model\.tflite in it"):
        PhotoServer(tmp_path / "nothing")


# What it answers


def test_everything_the_page_needs(server, run):
    answer, page = ask(server, "/")
    assert answer.status == 200
    assert answer.getheader("Content-Type") == "text/html; charset=utf-8"
    assert b"&lt;i&gt;Quarters&lt;/i&gt;" in page
    assert b"<i>Quarters" not in page
    known = json.loads(ask(server, "/model.json")[1])
    assert known["labels"] == list(NAMES)
    assert known["runtime"] == _litert_js.VERSION
    assert ask(server, "/model.tflite?1")[1] == (run / "model.tflite").read_bytes()
    for name in _litert_js.FILES:
        answer, content = ask(server, f"/litert_js/{name}", "HEAD")
        assert (answer.status, content) == (200, b"")
        assert int(answer.getheader("Content-Length")) > 1000
        assert answer.getheader("Content-Type") == (
            "application/wasm" if name.endswith(".wasm") else "text/javascript; charset=utf-8"
        )


def test_the_page_names_nothing_from_elsewhere(server):
    text = ask(server, "/")[1].decode()
    for path in ("classify.js", "resize.js", "scores.js"):
        text += ask(server, f"/{path}")[1].decode()
    assert not re.search(r"https?://|@import|url\(", text)
    assert not re.search(r'\b(?:src|href)="(?!classify\.js"|data:,")', text)


@pytest.mark.parametrize("path", ["/", "/model.tflite", "/litert_js/core.js", "/nothing"])
def test_every_answer_is_isolated(server, path):
    answer, _ = ask(server, path)
    assert answer.getheader("Cross-Origin-Opener-Policy") == "same-origin"
    assert answer.getheader("Cross-Origin-Embedder-Policy") == "require-corp"
    assert answer.getheader("Cross-Origin-Resource-Policy") == "same-origin"
    assert answer.getheader("X-Content-Type-Options") == "nosniff"
    assert not answer.getheader("Access-Control-Allow-Origin")


def test_the_policy_allows_nothing_from_elsewhere(server):
    policy = ask(server, "/")[0].getheader("Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'self' 'wasm-unsafe-eval';")
    assert "unsafe-inline" not in policy
    assert "http" not in policy


@pytest.mark.parametrize(
    "path",
    [
        "/../_server.py",
        "/litert_js/../_server.py",
        "/litert_js/%2e%2e/_server.py",
        "/litert_js/VERSION",
        "/..%2f..%2fcli.py",
        "//etc/passwd",
        "/etc/passwd",
        "/litert_js/",
        "/page.html.j2",
        "/model.tflite/..",
        "model.tflite",
    ],
)
def test_no_path_leads_anywhere_else(server, path):
    answer, content = ask(server, path)
    assert answer.status == 404
    assert b"import" not in content


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "", "[::1]:80"])
def test_names_of_other_sites_are_refused(server, host):
    """A site whose name is made to lead here would otherwise read the model."""
    assert ask(server, "/model.tflite", Host=host)[0].status == 421


def test_localhost_is_this_machine(server):
    port = server.url.split(":")[2].strip("/")
    assert ask(server, "/", Host=f"localhost:{port}")[0].status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_sent_to_it(server, method):
    assert ask(server, "/", method)[0].status == 501


# Where it listens


@installed
def test_it_listens_on_this_machine_alone_and_gives_the_port_back(run):
    server = PhotoServer(run, port=0)
    with server:
        server.start()  # a second time
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", server.url)
        port = int(server.url.split(":")[2].strip("/"))
        others = {i[4][0] for i in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
        for address in others - {"127.0.0.1"}:
            with pytest.raises(OSError, match=r"refused|unreachable|timed out"):
                socket.create_connection((address, port), timeout=2).close()
        with pytest.raises(OSError, match=rf"`port` must be free\. Received: port={port}"):
            PhotoServer(run, port=port).start()
    server.close()
    server.wait()
    with pytest.raises(RuntimeError, match="must be started first"):
        _ = server.url
    with PhotoServer(run, port=port) as again:
        assert ask(again, "/")[0].status == 200


def test_without_litert_js_it_says_what_to_run(run, monkeypatch, tmp_path):
    monkeypatch.setattr(_litert_js, "FOLDER", tmp_path / "litert_js")
    with pytest.raises(RuntimeError, match=r"Run: kerasopt serve --install .*or `make web`"):
        PhotoServer(run).start()


def test_the_page_and_its_description_agree():
    """Whatever the scripts read of the model is in the description."""
    folder = pathlib.Path(_litert_js.__file__).parent / "serving" / "page"
    text = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.js"))
    read = set(re.findall(r"model\.(\w+)", text))
    for names in re.findall(r"const \{ ([\w, ]+) \} = (?:state\.)?model;", text):
        read |= set(names.split(", "))
    from kerasopt.serving._description import Description

    assert read - {"json", "tflite", "runtime"} <= set(Description.__dataclass_fields__)
    assert np.isin(["labels", "activation", "mean", "scale"], sorted(read)).all()
