"""Options of the command line that have a name of their own."""

import pathlib
from typing import Annotated

import typer

Out = Annotated[pathlib.Path, typer.Option(help="Folder to write, which must not exist yet.")]
Epochs = Annotated[int, typer.Option(help="Passes over the training photos.")]
Batch = Annotated[int, typer.Option(help="Photos in a step.")]
Size = Annotated[
    int | None, typer.Option(help="Height and width in pixels; the backbone's by default.")
]
Weights = Annotated[str, typer.Option(help="'imagenet', 'none', or a local weights file.")]
Rate = Annotated[float, typer.Option(help="Peak of the cosine schedule.")]
Sparsity = Annotated[float, typer.Option(help="Fraction of zeros, 0 to prune nothing.")]
Start = Annotated[float, typer.Option(help="Fraction of training before quantization.")]
Augment = Annotated[bool, typer.Option(help="Augment in training.")]
OnBad = Annotated[str, typer.Option(help="'raise' on unreadable files, or 'skip' them.")]
Seed = Annotated[int, typer.Option(help="Of weights, split and shuffling.")]
Photos = Annotated[
    pathlib.Path, typer.Argument(help="One folder of photos per class, or train/ val/ test/.")
]
Backbone = Annotated[
    str, typer.Option(help="A name of keras.applications, or the path of a .keras file.")
]


KerasModel = Annotated[pathlib.Path, typer.Argument(help="A .keras file.")]
Quantize = Annotated[str, typer.Option(help="'none', 'float16', 'dynamic', 'int8' or 'int16x8'.")]
Data = Annotated[
    pathlib.Path | None, typer.Option(help="Photos to take ranges from and to verify on.")
]
File = Annotated[
    pathlib.Path | None, typer.Option(help="The file to write; beside the model by default.")
]
Probabilities = Annotated[
    bool, typer.Option(help="Put a softmax behind a model that ends in logits.")
]
BatchSize = Annotated[str, typer.Option(help="Inputs that the file takes at once, or 'any'.")]
AllowFlex = Annotated[bool, typer.Option("--allow-flex", help="Accept operators of TensorFlow.")]
Name = Annotated[str | None, typer.Option(help="Metadata: name of the model.")]
Description = Annotated[str | None, typer.Option(help="Metadata: what the model does.")]
Version = Annotated[str | None, typer.Option(help="Metadata: version of the model.")]
Author = Annotated[str | None, typer.Option(help="Metadata: who made it.")]
License = Annotated[str | None, typer.Option("--license", help="Metadata: its license.")]
Mean = Annotated[
    str | None, typer.Option(help="Metadata: an input is (pixel - mean) / std; 127.5, or 1,2,3.")
]
Std = Annotated[str | None, typer.Option(help="Metadata: see --mean.")]
