"""The page in a real browser: it paints, and no width of screen makes it scroll sideways."""

import json
import re
import subprocess

import numpy as np
import pytest
from PIL import Image

from kerasopt import report as kr
from tests.chromium import CHROMIUM, needs_chromium

pytestmark = [
    pytest.mark.slow,
    needs_chromium,
]
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--no-first-run",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--allow-file-access-from-files",
    "--virtual-time-budget=4000",
]

# Chromium will not make a window as narrow as a phone, so the page sits in a frame of that width.
WRAPPER = """<!DOCTYPE html><body><iframe src="report.html" width="{width}" height="900"></iframe>
<pre id="out"></pre><script>
addEventListener("load", () => {{
  const view = document.querySelector("iframe").contentWindow, page = view.document;
  const clipped = e => e && e !== page.body &&
    (view.getComputedStyle(e).overflowX !== "visible" || clipped(e.parentElement));
  const wide = [...page.querySelectorAll("body *")].filter(e =>
    e.getBoundingClientRect().right > view.innerWidth + 1 && !clipped(e.parentElement));
  document.getElementById("out").textContent = JSON.stringify({{
    inner: view.innerWidth, scroll: page.documentElement.scrollWidth,
    wide: wide.map(e => e.tagName + "." + e.className + e.textContent.slice(0, 30)).slice(0, 5),
    loaded: [...page.images].every(i => i.naturalWidth > 0), images: page.images.length,
    sections: [...page.querySelectorAll("section")].filter(s => s.offsetHeight > 40).length,
  }});
}});
</script>"""


def chromium(tmp_path, *arguments):
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def report(count, long_names):
    rng = np.random.default_rng(0)
    names = tuple(f"class_{i}" + "_with_a_very_long_name" * 6 * long_names for i in range(count))
    labels = np.repeat(np.arange(count), 4)
    predictions = np.where(rng.random(len(labels)) < 0.2, 0, labels)
    photos = rng.integers(0, 256, (3, 8, 96, 96, 3), dtype=np.uint8)
    word = "unbreakable" * 12
    files = tuple(
        kr.FileRow(f"{kind}{word}", kind, 9_000_000, 1, 0.9, 0.9, 1.0, {1: 9.0, 2: 5.0, 4: 3.0})
        for kind in ("float32", "float16", "dynamic", "int8")
    )
    return kr.RunReport(
        title=word if long_names else "A run",
        summary=(word, "Short."),
        settings={word: word},
        class_names=names,
        counts={"train": dict.fromkeys(names, 4), "test": dict.fromkeys(names, 4)},
        history={k: list(rng.random(30)) for k in ("loss", "val_loss", "accuracy", "sparsity")},
        events=tuple(kr.Event(e, "prune", word) for e in (0.0, 0.1, 0.2, 15.0, 29.9, 30.0)),
        augmented=tuple(photos),
        labels=labels,
        predictions=predictions,
        confidences=rng.random(len(labels)),
        mistakes=tuple(kr.Mistake(p, names[0], names[1], 0.9) for p in photos[0]),
        files=files,
        layers=({"name": word, "kind": word, "parameters": 10**9, "bytes": 10**9},),
        notes=(word, f"`{word}`"),
        environment={"processor": word},
    )


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
@pytest.mark.parametrize(("count", "long_names"), [(2, True), (17, False), (25, True), (60, True)])
def test_page_never_scrolls_sideways(tmp_path, width, count, long_names):
    html = kr.render(report(count, long_names)).replace("<details ", "<details open ")
    (tmp_path / "report.html").write_text(html, encoding="utf-8")
    (tmp_path / "wrapper.html").write_text(WRAPPER.format(width=width), encoding="utf-8")
    dom = chromium(tmp_path, "--dump-dom", (tmp_path / "wrapper.html").as_uri())
    measured = json.loads(re.search(r'<pre id="out">(.+?)</pre>', dom).group(1))
    assert measured["inner"] == width
    assert measured["wide"] == []
    assert measured["scroll"] <= measured["inner"]
    assert measured["loaded"]
    assert measured["images"] == 3 * 8 + 8
    assert measured["sections"] == 9


@pytest.mark.parametrize("dark", [False, True])
def test_page_paints_in_light_and_dark(tmp_path, dark):
    path = kr.write_report(report(5, long_names=False), tmp_path / "report.html")
    shot = tmp_path / "shot.png"
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    chromium(tmp_path, *scheme, "--window-size=1280,2400", f"--screenshot={shot}", path.as_uri())
    pixels = np.asarray(Image.open(shot).convert("L")).astype(int)
    assert pixels.shape[1] == 1280
    background = int(np.median(pixels))
    assert background < 60 if dark else background > 220
    assert np.mean(np.abs(pixels - background) > 80) > 0.02
