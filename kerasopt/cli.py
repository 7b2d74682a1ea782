"""The `kerasopt` command."""

import io
import pathlib
import random
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kerasopt import __version__
from kerasopt import _options as options
from kerasopt._files import write_atomic
from kerasopt._tables import export_rows, metadata_table, run_table
from kerasopt._terminal import EXPECTED_ERRORS, quiet_libraries, training_progress
from kerasopt._text import printable
from kerasopt._validation import check_choice, check_int

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train an image classifier with Keras 3 and ship it as a verified TFLite file.",
)
# What is printed holds names from files and paths: nothing of it is taken for markup.
console = Console(markup=False, emoji=False)

_RECIPES = ("basic", "randaugment", "trivialaugment", "autoaugment", "augmix")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        console.print(__version__)
        raise typer.Exit


@app.command()
def demo(
    out: options.Out = pathlib.Path("kerasopt-demo"),
    epochs: options.Epochs = 20,
    open_report: Annotated[bool, typer.Option("--open", help="Open the report.")] = False,
) -> None:
    """Train, prune, quantize and ship a small net on the data set inside the package."""
    from kerasopt import _runs

    folder = _runs.new_folder(out)
    recipe = _runs.Recipe(epochs=epochs, batch_size=64, learning_rate=4e-3, quantize_start=0.6)
    console.print("6,000 training and 1,000 test images of Fashion-MNIST, 10 classes")
    trained = _runs.train_demo(recipe, progress=training_progress(console))
    _finish(_runs.write_run(trained, folder, say=console.print), folder)
    if open_report:
        typer.launch(str(folder / "report.html"))


@app.command()
def train(
    directory: options.Photos,
    backbone: options.Backbone = "MobileNetV2",
    out: options.Out = pathlib.Path("run"),
    epochs: options.Epochs = 10,
    batch_size: options.Batch = 32,
    image_size: options.Size = None,
    weights: options.Weights = "imagenet",
    learning_rate: options.Rate = 1e-3,
    sparsity: options.Sparsity = 0.5,
    quantize_start: options.Start = 0.7,
    augment: options.Augment = True,
    on_bad: options.OnBad = "raise",
    seed: options.Seed = 0,
) -> None:
    """Fine-tune a backbone on a folder of photos and ship it as a verified int8 file."""
    from kerasopt import _runs

    recipe = _runs.Recipe(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        sparsity=sparsity,
        quantize_start=quantize_start,
        augment=augment,
        seed=seed,
    )
    folder = _runs.new_folder(out)
    try:
        trained = _runs.train_folder(
            directory,
            backbone,
            recipe,
            weights=None if weights == "none" else weights,
            image_size=image_size,
            on_bad=on_bad,
            progress=training_progress(console),
            say=console.print,
        )
    except BaseException:
        folder.rmdir()  # nothing is in it yet
        raise
    _finish(_runs.write_run(trained, folder, say=console.print), folder)


@app.command()
def export(
    model: options.KerasModel,
    quantize: options.Quantize = "none",
    data: options.Data = None,
    out: options.File = None,
    probabilities: options.Probabilities = False,
    batch_size: options.BatchSize = "1",
    allow_flex: options.AllowFlex = False,
    name: options.Name = None,
    description: options.Description = None,
    version: options.Version = None,
    author: options.Author = None,
    license_: options.License = None,
    mean: options.Mean = None,
    std: options.Std = None,
    seed: options.Seed = 0,
) -> None:
    """Convert a Keras model to TFLite, verified on photos where there are any."""
    from kerasopt._export_command import export_file
    from kerasopt._keras_file import load_keras

    if not model.is_file():
        raise ValueError(f"`model` must be a .keras file. Received: {str(model)!r}, no such file.")
    check_choice("quantize", quantize, ("none", "float16", "dynamic", "int8", "int16x8"))
    target = out or model.with_suffix(".tflite")
    texts = {"name": name, "description": description, "version": version, "author": author}
    result = export_file(
        load_keras(model, name="model"),
        target,
        quantize=quantize,
        data=data,
        seed=seed,
        batch_size=batch_size,
        metadata={**texts, "license": license_, "mean": mean, "std": std},
        probabilities=probabilities,
        allow_flex=allow_flex,
    )
    table = Table(title=Text(str(target)), show_header=False)
    for heading, value in export_rows(result):
        table.add_row(heading, value)
    console.print(table)


@app.command()
def inspect(
    file: Annotated[pathlib.Path, typer.Argument(help="A .tflite or .keras file.")],
) -> None:
    """Show what a file is made of, layer by layer."""
    from kerasopt import profiling

    profile = profiling.profile(file)
    console.print(profile.table(), highlight=False, soft_wrap=True)
    if file.suffix == ".tflite":
        from kerasopt.export import TFLiteModel, read_metadata

        lite = TFLiteModel(file)
        console.print(
            f"input  {lite.input_dtype} {lite.input_shape}\n"
            f"output {lite.output_dtype} {lite.output_shape}"
        )
        metadata = read_metadata(file)
        console.print(metadata_table(metadata) if metadata else "No metadata.", highlight=False)


@app.command()
def benchmark(
    files: Annotated[list[pathlib.Path], typer.Argument(help="One or more .tflite files.")],
    threads: Annotated[str, typer.Option(help="Numbers of threads, comma-separated.")] = "1,2",
    runs: Annotated[int, typer.Option(help="Measured inferences for each.")] = 50,
    warmup: Annotated[int, typer.Option(help="Inferences before them.")] = 5,
    xnnpack: Annotated[bool, typer.Option(help="Let XNNPACK run what it can.")] = True,
) -> None:
    """Measure time and memory of one inference on this machine, several files in turns."""
    from kerasopt import export

    counts = [part.strip() for part in threads.split(",")]
    if not all(count.isdigit() for count in counts):
        raise ValueError(f"`threads` must be numbers like 1,2. Received: threads={threads!r}.")
    report = export.benchmark(
        files,
        threads=[int(count) for count in counts],
        runs=runs,
        warmup=warmup,
        xnnpack=xnnpack,
    )
    console.print(report.table(), highlight=False, soft_wrap=True)


@app.command()
def diff(
    a: Annotated[pathlib.Path, typer.Argument(help="A .keras or .tflite file.")],
    b: Annotated[pathlib.Path, typer.Argument(help="Another one, of the same inputs.")],
    data: Annotated[pathlib.Path, typer.Argument(help="A folder of photos.")],
    samples: Annotated[int, typer.Option(help="Photos on which layers are compared.")] = 16,
    tolerance: Annotated[
        float, typer.Option(help="Relative error from which a layer counts as parted.")
    ] = 0.2,
) -> None:
    """Show where two models or files part, layer by layer and photo by photo."""
    from kerasopt import export, profiling

    files = [file for file in (a, b) if file.suffix == ".tflite" and file.is_file()]
    labels = [metadata.labels for metadata in map(export.read_metadata, files) if metadata]
    found = profiling.diff(
        a,
        b,
        data,
        samples=samples,
        tolerance=tolerance,
        class_names=next(filter(None, labels), None),
    )
    console.print(found.table(), highlight=False, soft_wrap=True)


@app.command()
def report(
    runs: Annotated[
        list[pathlib.Path],
        typer.Argument(help="Folders of runs; the others are compared with the first."),
    ],
    out: Annotated[
        pathlib.Path | None, typer.Option(help="The page that compares several runs.")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page.")] = False,
) -> None:
    """Compare runs on one page, or say where the report of a single run is."""
    from kerasopt import report as reports

    if len(runs) > 1:
        page = reports.write_comparison(runs, out or pathlib.Path("comparison.html"))
    elif out is not None:
        raise ValueError(
            "`out` must be left out with a single run, whose page is its report.html. "
            f"Received: out={str(out)!r}. Name more runs to compare."
        )
    else:
        page = runs[0] / "report.html"
        if not page.is_file():
            raise ValueError(
                "`runs` must be folders of runs. "
                f"Received: {str(runs[0])!r}, which has no report.html. `kerasopt train` writes it."
            )
    console.print(str(page), highlight=False, soft_wrap=True)
    if open_page:
        typer.launch(str(page))


@app.command()
def serve(
    run: Annotated[
        pathlib.Path | None, typer.Argument(help="The folder of a run, or a .tflite file.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port on this machine; 0 takes any free one.")] = 8765,
    open_page: Annotated[bool, typer.Option("--open/--no-open", help="Open the page.")] = True,
    install: Annotated[
        bool, typer.Option("--install", help="Fetch LiteRT.js with npm first, once.")
    ] = False,
) -> None:
    """Show a local page in which the exported file classifies photos, inside the browser."""
    from kerasopt import _litert_js

    if install:
        console.print(f"LiteRT.js {_litert_js.VERSION}: {_litert_js.install()}", soft_wrap=True)
        if run is None:
            return
    if run is None:
        raise ValueError(
            "`run` must be the folder of a run, or a .tflite file. Received: none. "
            "For example: kerasopt serve run"
        )
    _litert_js.check_installed()
    from kerasopt.serving import PhotoServer

    with PhotoServer(run, port=port) as server:
        console.print(f"{printable(server.description['title'])}: {server.url}  (Ctrl-C ends it)")
        if open_page:
            typer.launch(server.url)
        server.wait()


@app.command()
def preview(
    directory: Annotated[pathlib.Path, typer.Argument(help="A folder of photos.")],
    recipe: Annotated[str, typer.Option(help=f"One of {', '.join(_RECIPES)}.")] = "basic",
    out: Annotated[pathlib.Path, typer.Option(help="The picture: .png, .jpg, .pdf or .svg.")] = (
        pathlib.Path("preview.png")
    ),
    rows: Annotated[int, typer.Option(help="Photos, drawn at random.")] = 4,
    columns: Annotated[int, typer.Option(help="Pictures of each, the photo included.")] = 6,
    seed: Annotated[int, typer.Option(help="Of the photos drawn and of the recipe.")] = 0,
) -> None:
    """Draw photos of a folder beside what training makes of them."""
    check_choice("recipe", recipe, _RECIPES)
    check_choice("out", out.suffix.lower(), (".png", ".jpg", ".pdf", ".svg"))
    check_int("rows", rows, low=1)
    check_int("columns", columns, low=2)
    check_int("seed", seed, low=0)
    photos = _some_photos(directory, rows, seed)
    from kerasopt import augmentation, datasets

    images = [datasets.load_image(photo) for photo in photos]
    layer = getattr(augmentation, recipe)(seed=seed)
    figure = augmentation.preview(layer, images, rows=rows, columns=columns)
    picture = io.BytesIO()
    figure.savefig(picture, format=out.suffix[1:].lower(), dpi=120)
    console.print(f"{len(images)} photos, {recipe}: {write_atomic(out, picture.getvalue())}")


def _some_photos(directory: pathlib.Path, count: int, seed: int) -> list[pathlib.Path]:
    """Draws photos from a folder and the folders in it."""
    from PIL import Image

    kinds = Image.registered_extensions()
    photos = [
        file
        for file in sorted(directory.rglob("*"))
        if kinds.get(file.suffix.lower()) in Image.OPEN
        and not any(part.startswith(".") for part in file.relative_to(directory).parts)
    ]
    if not photos:
        raise ValueError(
            "`directory` must be a folder that holds photos, itself or in folders. "
            f"Received: directory={str(directory)!r}."
        )
    return random.Random(seed).sample(photos, min(count, len(photos)))  # noqa: S311


def _finish(metrics: dict[str, Any], folder: pathlib.Path) -> None:
    console.print(run_table(metrics, folder))
    for note in metrics["notes"]:
        console.print(note, style="dim")
    console.print(
        f"Trained in {metrics['training_seconds']:.0f} s. Report: {folder / 'report.html'}"
    )
    console.print(f"Drop photos on it: kerasopt serve {folder}", highlight=False, soft_wrap=True)


def main() -> None:
    """Runs the command; a mistake in the input ends in one line and exit code 1."""
    try:
        with quiet_libraries():
            app()
    except EXPECTED_ERRORS as error:
        said = printable(str(error) or type(error).__name__)
        line = Text.assemble(("Error:", "bold red"), f" {said}")
        Console(stderr=True).print(line, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
