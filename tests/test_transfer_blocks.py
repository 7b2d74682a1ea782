"""`blocks` where names do not tell, where models are nested, and where a block has no name."""

import keras
import pytest

from kerasopt.transfer import blocks, build_classifier, split_layers
from kerasopt.transfer._graph import bottlenecks
from tests.backbones import headed, tiny_maps

layers = keras.layers


def described(model):
    return [(block.name, [layer.name for layer in block.layers]) for block in blocks(model)]


def check_partition(model):
    base, head = split_layers(model)
    grouped = [layer for block in blocks(model) for layer in block.layers]
    assert [id(layer) for layer in grouped] == [id(layer) for layer in base]
    assert all(any(layer.weights for layer in block.layers) for block in blocks(model))
    names = [block.name for block in blocks(model)]
    assert len(set(names)) == len(names)
    weights = {id(w) for layer in base + head for w in layer.weights}
    assert weights == {id(w) for w in model.weights}
    return names


def classifier(image, x):
    return keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))


def test_a_network_that_never_gets_smaller_is_cut_at_its_residual_blocks():
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", name="patches")(image)
    for n in "ab":
        y = layers.LayerNormalization(name=f"norm_{n}")(x)
        y = layers.Conv2D(4, 3, padding="same", name=f"mix_{n}")(y)
        x = layers.Add(name=f"sum_{n}")([x, y])
    x = layers.LayerNormalization(name="last_norm")(x)
    assert described(classifier(image, x)) == [
        ("stage1", ["patches"]),
        ("stage2", ["norm_a", "mix_a", "sum_a"]),
        ("stage3", ["norm_b", "mix_b", "sum_b", "last_norm"]),
    ]


def test_a_plain_chain_has_a_block_for_each_kernel():
    image = keras.Input((8, 8, 3))
    x = image
    for n in "ab":
        x = layers.Conv2D(4, 3, padding="same", name=f"kernel_{n}")(x)
        x = layers.BatchNormalization(name=f"norm_{n}")(x)
        x = layers.ReLU(name=f"relu_{n}")(x)
    assert described(classifier(image, x)) == [
        ("stage1", ["kernel_a", "norm_a", "relu_a"]),
        ("stage2", ["kernel_b", "norm_b", "relu_b"]),
    ]


def inception(image):
    """A stem, and two blocks of parallel layers that only their concatenation gives a name."""
    x = layers.Conv2D(4, 3, strides=2, name="first")(image)
    x = layers.Conv2D(4, 3, name="second")(x)
    for n in range(2):
        branches = [
            layers.Conv2D(2, size, padding="same", name=f"branch_{n}_{size}")(x) for size in (1, 3)
        ]
        x = layers.Concatenate(name=f"mixed{n}")(branches)
    return x


@pytest.mark.parametrize("nested", [False, True])
def test_a_concatenation_closes_its_block_and_the_stem_stands_alone(nested):
    image = keras.Input((16, 16, 3))
    x = inception(image)
    if nested:
        outer = keras.Input((16, 16, 3))
        image, x = outer, keras.Model(image, x, name="inner")(outer)
    assert described(classifier(image, x)) == [
        ("stem", ["first", "second"]),
        ("mixed0", ["branch_0_1", "branch_0_3", "mixed0"]),
        ("mixed1", ["branch_1_1", "branch_1_3", "mixed1"]),
    ]


def test_layers_without_telling_names_take_those_of_their_models():
    stack = keras.Sequential([keras.Input((8, 8, 3))])
    for n in range(3):
        stack.add(
            keras.Sequential(
                [layers.Conv2D(4, 3, padding="same"), layers.ReLU()], name=f"stage_{n}"
            )
        )
    stack.add(layers.GlobalAveragePooling2D())
    stack.add(layers.Dense(2))
    assert check_partition(stack) == ["stage_0", "stage_1", "stage_2"]


def test_a_nested_backbone_has_the_blocks_it_has_by_itself():
    maps = tiny_maps()
    image = keras.Input((8, 8, 3))
    nested = classifier(image, maps(image))
    assert described(nested) == described(build_classifier(maps, 2))
    assert check_partition(nested) == ["stem", "block1", "block2"]


def test_bottlenecks_are_what_every_path_goes_through():
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="start")(image)
    y = layers.Conv2D(4, 1, name="side")(x)
    x = layers.Add(name="sum")([x, y])
    x = layers.Conv2D(4, 1, name="end")(x)
    model = keras.Model(image, x)
    found = bottlenecks(model)
    assert [layer.name for layer in model.layers if id(layer) in found] == ["start", "sum", "end"]


def test_every_block_prints_with_its_name_and_size():
    model = build_classifier(tiny_maps(), 2)
    rows = str(blocks(model)).splitlines()[1:]
    for block, row in zip(blocks(model), rows, strict=True):
        assert row.split()[:3] == [block.name, str(len(block.layers)), str(block.num_parameters)]
    assert split_layers(model)[0][0] is blocks(model)[0].layers[0]


def test_blocks_of_a_model_without_telling_names_are_its_resolutions():
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(2, 3, padding="same")(image)
    for filters in (3, 4):
        main = layers.Conv2D(filters, 3, strides=2, padding="same")(x)
        main = layers.Conv2D(filters, 3, padding="same")(main)
        short = layers.Conv2D(filters, 1, strides=2, padding="same")(x)
        x = layers.ReLU()(layers.Add()([main, short]))
    x = layers.Dense(2)(layers.Flatten()(x))
    model = keras.Model(image, x)
    assert check_partition(model) == ["stage1", "stage2", "stage3"]
    assert [sum(bool(layer.weights) for layer in b.layers) for b in blocks(model)] == [1, 3, 3]


def test_split_of_a_model_without_pooling_takes_the_last_weights():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dense(2)])
    base, head = split_layers(model)
    assert [layer.units for layer in base + head] == [3, 2]
    with pytest.raises(ValueError, match="must be built and have a layer with weights"):
        split_layers(keras.Sequential([layers.Dense(2)]))


def test_blocks_print_as_a_table():
    model = build_classifier(headed(), 3)
    model.get_layer("stem_conv").trainable = False
    model.get_layer("block1_excite").trainable = False
    text = str(blocks(model)).splitlines()
    assert text[0].split() == ["block", "layers", "parameters", "trainable"]
    assert text[1].split() == ["stem", "2", str(4 * 27 + 4 + 4 * 4), "partly"]
    assert text[2].split() == ["block1", "3", str(4 * 4 + 4), "no"]
    assert text[3].split() == ["block2", "2", str(6 * 36 + 6), "yes"]
