"""The page's script in a real browser: sorting, filtering, saying values, copying, no network."""

import re

import numpy as np
import pytest

from kerasopt import report as kr
from tests.chromium import needs_chromium
from tests.comparison_runs import better, metrics, write
from tests.report_page import SCRIPT, row, sample

pytestmark = [
    pytest.mark.slow,
    needs_chromium,
]
SIGNATURE = kr.Signature((96, 96, 3), "uint8", "float32")
LAYERS = (
    {"name": "stem/conv", "kind": "CONV_2D", "parameters": 900, "zeros": 90, "bytes": 1000},
    {"name": "body/depthwise", "kind": "DEPTHWISE_CONV_2D", "parameters": 90, "bytes": 90},
    {"name": "pool", "kind": "MEAN"},
    {"name": "head/logits", "kind": "FULLY_CONNECTED", "parameters": 30, "zeros": 0, "bytes": 30},
)


@pytest.fixture
def open_page(browser, tmp_path):
    """Opens a page from a file; what it asks for and complains about is kept."""
    contexts = []

    def open_page(html, **options):
        path = tmp_path / "report.html"
        path.write_text(html, encoding="utf-8")
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.asked, page.said = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def page(open_page):
    return open_page(kr.render(sample(layers=LAYERS)))


def names(page, table):
    return page.locator(f"{table} tbody tr:visible th").all_inner_texts()


def layer_heads(page):
    return page.locator("#layer-table th button")


def test_the_page_asks_for_nothing_and_has_nothing_to_complain_about(page):
    page.mouse.wheel(0, 5000)
    page.wait_for_timeout(300)
    assert [url for url in page.asked if not url.startswith(("file:", "data:"))] == []
    assert [url for url in page.asked if url.startswith("file:")] == [page.url]
    assert page.said == []


def test_a_script_of_another_text_does_not_run(open_page):
    """The policy is what keeps a name in the data from ever being a program."""
    html = kr.render(sample()).replace(
        "</body>", "<script>document.title = 'taken'</script></body>"
    )
    page = open_page(html)
    assert page.title() == "Three flowers"
    assert any("Content Security Policy" in line for line in page.said)
    changed = html.replace(SCRIPT.read_text("utf-8")[:40], "document.title = 'taken';//")
    assert open_page(changed).title() == "Three flowers"


def test_tables_sort_by_numbers_by_text_and_back(page):
    heads = layer_heads(page)
    as_built = ["stem/conv", "body/depthwise", "pool", "head/logits"]
    assert names(page, "#layer-table") == as_built
    bytes_head = heads.filter(has_text="Bytes")
    bytes_head.click()
    assert names(page, "#layer-table") == ["stem/conv", "body/depthwise", "head/logits", "pool"]
    assert bytes_head.locator("..").get_attribute("aria-sort") == "descending"
    bytes_head.click()  # what has no value stays last
    assert names(page, "#layer-table") == ["head/logits", "body/depthwise", "stem/conv", "pool"]
    assert bytes_head.locator("..").get_attribute("aria-sort") == "ascending"
    heads.filter(has_text="Layer").click()
    assert names(page, "#layer-table") == sorted(as_built)
    assert page.locator("#layer-table [aria-sort]").count() == 1
    heads.filter(has_text="Layer").click()
    heads.filter(has_text="Layer").click()
    assert names(page, "#layer-table") == as_built
    assert page.locator("#layer-table [aria-sort]").count() == 0


def test_tables_sort_from_the_keyboard(open_page):
    files = (row(), row(name="float.tflite", kind="float32", size=13_636_112, shipped=False))
    page = open_page(kr.render(sample(files=files)))
    page.locator("#files th button", has_text="Size").focus()
    page.keyboard.press("Enter")
    assert [name.split()[0] for name in names(page, "#files")] == ["float.tflite", "model.tflite"]
    page.keyboard.press("Space")
    assert [name.split()[0] for name in names(page, "#files")] == ["model.tflite", "float.tflite"]


def test_layers_are_filtered_by_words_anywhere_in_the_row(page):
    search = page.locator("#layers input")
    search.fill("CONV")
    assert names(page, "#layer-table") == ["stem/conv", "body/depthwise"]
    assert page.locator("#layers output").inner_text() == "2 of 4"
    search.fill("conv stem")
    assert names(page, "#layer-table") == ["stem/conv"]
    search.fill("nothing")
    assert names(page, "#layer-table") == []
    page.emulate_media(media="print")  # paper cannot be searched: all rows are on it
    assert len(names(page, "#layer-table")) == 4
    assert page.locator("#layers input").is_hidden()
    page.emulate_media(media="screen")
    search.fill("")
    assert len(names(page, "#layer-table")) == 4


def test_curves_say_the_values_of_an_epoch_under_the_pointer(page):
    plot = page.locator("#curves .plot").first
    tip = plot.locator(".tip")
    assert tip.is_hidden()
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.64, box["y"] + box["height"] / 2)
    said = tip.locator("p").all_inner_texts()
    assert said == ["epoch 2, training: 0.5", "epoch 2, validation: 0.6"]
    assert plot.locator(".near").count() == 2
    page.mouse.move(5, 5)
    assert tip.is_hidden()


def test_curves_say_their_values_to_the_keyboard(page):
    plot = page.locator("#curves .plot").first
    tip = plot.locator(".tip")
    plot.focus()
    assert "epoch 3" in tip.inner_text()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert "epoch 1, training: 1" in tip.inner_text()
    page.keyboard.press("Escape")
    assert tip.is_hidden()
    assert "Loss by epoch" in plot.get_attribute("aria-label")


def test_a_long_curve_answers_too_though_its_dots_are_not_drawn(open_page):
    history = {"loss": [1 / (1 + e) for e in range(120)]}
    page = open_page(kr.render(sample(history=history, events=())))
    plot = page.locator("#curves .plot").first
    plot.focus()
    page.keyboard.press("ArrowLeft")
    assert plot.locator(".tip").inner_text() == f"epoch 119, training: {1 / 119:.4g}"


@pytest.mark.parametrize("allowed", [True, False])
def test_code_is_copied(open_page, allowed):
    """Where the clipboard is refused the browser's older way is taken."""
    page = open_page(kr.render(sample(signature=SIGNATURE)))
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    if not allowed:
        page.evaluate("void (navigator.clipboard.writeText = () => Promise.reject(new Error()))")
    button = page.locator("#code .copy").first
    button.click()
    page.wait_for_function("document.querySelector('.copy').textContent === 'Copied'")
    code = page.locator("#code code").filter(has_text="ai_edge_litert").first.text_content()
    assert page.evaluate("navigator.clipboard.readText()") == code
    assert code.startswith("# pip install ai-edge-litert")


@pytest.mark.parametrize("options", [{"java_script_enabled": False}, {}])
def test_everything_reads_without_the_script_and_in_print(open_page, options):
    page = open_page(kr.render(sample(layers=LAYERS)), **options)
    if options:
        assert page.locator("th button, .tip, .copy").count() == 0
        assert page.locator("#layers input").is_hidden()
        page.locator("#summary summary").click()
        assert "epoch 2, training: 0.5" in page.locator("#curves title").all_text_contents()
    else:
        page.emulate_media(media="print")
        pdf = page.pdf(format="A4")
        assert len(re.findall(rb"/Type\s*/Page\b", pdf)) > 1
    shown = page.locator("body").inner_text().replace("\u202f", " ")
    for text in ("stem/conv", "DEPTHWISE_CONV_2D", "3.42 MiB", "block_6 and up unfrozen", "daisy"):
        assert text in shown


@pytest.mark.parametrize("width", [320, 360, 390, 1280])
def test_no_width_scrolls_sideways_also_when_a_value_is_said(open_page, width):
    html = kr.render(sample(layers=LAYERS, signature=SIGNATURE))
    page = open_page(
        html.replace("<details ", "<details open "), viewport={"width": width, "height": 800}
    )
    for plot in page.locator(".plot").all():
        for key in ("ArrowRight", "ArrowLeft", "ArrowLeft", "ArrowLeft"):
            plot.press(key)
            box = plot.locator(".tip").bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
            assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("compare", [False, True])
def test_nothing_is_cut_off_on_paper(open_page, tmp_path, compare):
    """A4 with the page's margins is 688 pixels wide; what is wider would be cut or shrunk."""
    if compare:
        runs = [write(tmp_path / f"run_{i}", metrics()) for i in range(8)]
        html = kr.write_comparison(runs, tmp_path / "c.html").read_text("utf-8")
    else:
        kinds = ("float32", "float16", "dynamic", "int8")
        times = {1: 12.5, 2: 8.25, 4: 6.125}
        files = tuple(
            row(name=f"{kind}.tflite", kind=kind, shipped=kind == "int8", milliseconds=times)
            for kind in kinds
        )
        html = kr.render(sample(files=files, layers=LAYERS, signature=SIGNATURE))
    page = open_page(html, viewport={"width": 688, "height": 1000})
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= 688
    for table in page.locator("table.numbers").all():
        box = table.bounding_box()
        assert box["x"] + box["width"] <= 688 + 1


def test_the_pins_of_all_kinds_of_events_are_painted_in_their_colours(open_page):
    kinds = ("unfreeze", "prune", "quantize", "other")
    page = open_page(kr.render(sample(events=tuple(kr.Event(1.0, k, k) for k in kinds))))
    colours = page.evaluate(
        "[...document.querySelectorAll('.pins .pin')].map(e => getComputedStyle(e).backgroundColor)"
    )
    assert len(set(colours)) == 4
    assert "rgba(0, 0, 0, 0)" not in colours


def test_a_trade_off_is_said_by_the_nearest_file(page):
    plot = page.locator("#pareto .plot").first
    tip = plot.locator(".tip")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    dot = plot.locator(".dot.shipped").bounding_box()
    page.mouse.move(dot["x"] + 12, dot["y"] - 9)
    said = " ".join(tip.locator("p").all_inner_texts()).replace("\u202f", " ")
    assert said == "int8, shipped accuracy 87.5 %, 3.42 MiB 14.3 ms with 1 thread"
    page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 20)
    assert tip.locator("p").first.inner_text() == "float32"


def names_that_meet(page):
    """Returns the names in plots that cover each other, as they are painted."""
    return page.evaluate("""() => [...document.querySelectorAll(".plot")].flatMap(plot => {
      const names = [...plot.querySelectorAll(".name")].map(e => [e, e.getBoundingClientRect()]);
      return names.flatMap(([a, p], i) => names.slice(i + 1)
        .filter(([, q]) => p.left < q.right && q.left < p.right)
        .filter(([, q]) => p.top < q.bottom && q.top < p.bottom)
        .map(([b]) => `${a.textContent} over ${b.textContent}`));
    })""")


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_names_in_plots_do_not_cover_each_other(open_page, width):
    kinds = ("float32", "float16", "dynamic", "int8")
    for seed in range(4):
        rng = np.random.default_rng(seed)
        files = tuple(
            row(
                name=kind,
                kind=kind,
                shipped=kind == "int8",
                size=int(rng.integers(10**5, 10**7)),
                accuracy=float(rng.uniform(0.85, 0.9)),
                milliseconds={1: float(rng.uniform(1, 9))},
            )
            for kind in kinds
        )
        html = kr.render(sample(files=files))
        page = open_page(html, viewport={"width": width, "height": 800})
        assert page.locator("#pareto .name").count() >= 4
        assert names_that_meet(page) == []


@pytest.mark.parametrize("width", [360, 390, 1280])
def test_the_comparison_works_at_every_width(open_page, tmp_path, width):
    runs = [write(tmp_path / f"run_{i}", better() if i % 2 else metrics()) for i in range(8)]
    html = kr.write_comparison(runs, tmp_path / "c.html").read_text("utf-8")
    page = open_page(html, viewport={"width": width, "height": 800}, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert names_that_meet(page) == []
    page.locator("#run-table th button", has_text="File").click()
    assert names(page, "#run-table")[0].startswith("B")
    plot = page.locator("#curves .plot").first
    plot.focus()
    said = plot.locator(".tip p").all_inner_texts()
    assert len(said) == 8
    assert said[1].replace("\u202f", " ") == "epoch 2, B run_1: 80.0 %"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    colours = page.evaluate(
        "[...document.querySelectorAll('#runs .pin')].map(e => getComputedStyle(e).backgroundColor)"
    )
    assert len(set(colours)) == 8
    assert page.said == []
