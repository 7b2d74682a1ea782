"""Dictionaries: boxes and masks move with their image, the rest stays."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasopt as ko

tf.keras.__version__  # noqa: B018 - settled before KerasCV reads it
import keras_cv  # noqa: E402

Augmentation = ko.augmentation.Augmentation
CV, K = keras_cv.layers, keras.layers
HEIGHT, WIDTH = 32, 40
BLACK = {"fill_mode": "constant"}


@pytest.fixture(scope="module")
def inputs():
    """One bright rectangle in each image, its box, its mask, and room for a second box."""
    rng = np.random.default_rng(1)
    images = np.zeros((4, HEIGHT, WIDTH, 3), "float32")
    masks = np.zeros((4, HEIGHT, WIDTH, 1), "int32")
    boxes = np.full((4, 2, 4), -1, "float32")
    for i in range(4):
        x, y, width, height = *rng.integers(10, 15, 2), *rng.integers(6, 12, 2)
        images[i, y : y + height, x : x + width] = 200
        masks[i, y : y + height, x : x + width] = 1
        boxes[i, 0] = (x, y, x + width, y + height)
    return {
        "images": images,
        "labels": np.arange(4),
        "bounding_boxes": {"boxes": boxes, "classes": np.array([[3, -1]] * 4)},
        "segmentation_masks": masks,
        "names": np.array(["a", "b", "c", "d"]),
    }


def around(bright):
    """Returns the box around what is bright in each image."""
    found = []
    for image in np.asarray(bright):
        rows, columns = np.nonzero(image > 0.5)
        found.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    return np.array(found, "float32")


def augment(layers, inputs, **options):
    options = {"bounding_box_format": "xyxy", "seed": 3, **options}
    tensors = {key: value for key, value in inputs.items() if key != "names"}
    return Augmentation(layers, **options)(tensors, training=True)


GEOMETRY = {
    "KerasCV flip": CV.RandomFlip("horizontal_and_vertical"),
    "Keras flip": K.RandomFlip(),
    "KerasCV rotation": CV.RandomRotation(0.1, segmentation_classes=2, **BLACK),
    "Keras rotation": K.RandomRotation(0.1, **BLACK),
    "Keras zoom": K.RandomZoom(0.2, **BLACK),
    "KerasCV translation": CV.RandomTranslation(0.1, 0.1, **BLACK),
    "Keras translation": K.RandomTranslation(0.1, 0.1, **BLACK),
    "KerasCV shear": CV.RandomShear(0.1, 0.1, **BLACK),
    "Keras shear": K.RandomShear(0.1, 0.1, **BLACK),
    "Keras perspective": K.RandomPerspective(1.0, 0.3),
    "KerasCV crop and resize": CV.RandomCropAndResize((HEIGHT, WIDTH), (0.8, 1.0), (0.9, 1.1)),
    "to another size": CV.RandomCropAndResize((24, 30), (0.8, 1.0), (0.9, 1.1)),
    "Keras crop": K.RandomCrop(28, 36),
    "centre crop": K.CenterCrop(28, 36),
    "KerasCV resizing": CV.Resizing(64, 60),
    "KerasCV padding": CV.Resizing(64, 60, pad_to_aspect_ratio=True),
    "Keras resizing": K.Resizing(64, 60),
    "jitter": CV.JitteredResize((HEIGHT, WIDTH), (0.9, 1.0)),
    "pipeline": K.Pipeline([K.RandomFlip(), K.RandomTranslation(0.1, 0.1, **BLACK)]),
}


@pytest.mark.slow
@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("name", GEOMETRY)
def test_boxes_and_masks_move_with_their_image(name, fuse, inputs):
    changed = augment([GEOMETRY[name]], inputs, fuse=fuse)
    boxes = np.asarray(changed["bounding_boxes"]["boxes"])
    assert np.abs(boxes - inputs["bounding_boxes"]["boxes"])[:, 0].max() > 0.5
    np.testing.assert_allclose(around(changed["segmentation_masks"][..., 0]), boxes[:, 0], atol=1)
    np.testing.assert_allclose(around(changed["images"][..., 0] / 200), boxes[:, 0], atol=1)
    np.testing.assert_array_equal(boxes[:, 1], -1)
    np.testing.assert_array_equal(changed["bounding_boxes"]["classes"], [[3, -1]] * 4)


@pytest.mark.slow
def test_a_whole_recipe_moves_boxes_and_masks(inputs):
    recipe = ko.augmentation.basic(rotation=0.03, zoom=0.1, crop=0.05)
    changed = augment(list(recipe.layers), inputs)
    boxes = np.asarray(changed["bounding_boxes"]["boxes"])[:, 0]
    np.testing.assert_allclose(around(changed["segmentation_masks"][..., 0]), boxes, atol=1)
    bright = np.asarray(changed["images"]).mean(-1)
    middle = (bright.max((1, 2)) + bright.min((1, 2)))[:, None, None] / 2
    np.testing.assert_allclose(around(bright - middle + 0.5), boxes, atol=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "layer",
    [
        CV.RandomApply(CV.RandomFlip(), rate=0.7),
        CV.RandomChoice([CV.RandomFlip(), CV.RandomTranslation(0.1, 0.1, **BLACK)]),
        CV.RandomZoom(0.2, **BLACK),
    ],
    ids=["apply", "choice", "zoom"],
)
def test_layers_that_take_no_boxes_take_masks(layer, inputs):
    given = {key: inputs[key] for key in ("images", "segmentation_masks", "labels")}
    augmentation = Augmentation([layer], fuse=False, seed=3)
    data = tf.data.Dataset.from_tensor_slices(given).batch(4)
    changed = next(iter(data.map(lambda x: augmentation(x, training=True))))
    assert np.abs(changed["images"] - inputs["images"]).max() > 100
    masks = changed["segmentation_masks"][..., 0]
    np.testing.assert_allclose(around(changed["images"][..., 0] / 200), around(masks), atol=1)


def test_each_image_has_its_own_crop(inputs):
    given = {"images": np.repeat(inputs["images"][:1], 8, axis=0)}
    changed = Augmentation([K.RandomCrop(22, 28)], seed=1)(given, training=True)["images"]
    assert len(np.unique(around(changed[..., 0] / 200), axis=0)) > 3


@pytest.mark.slow
@pytest.mark.parametrize("fuse", [True, False])
def test_labels_types_and_other_keys_stay(fuse, inputs):
    augmentation = Augmentation(
        [CV.RandomFlip(), K.RandomBrightness(0.2), CV.RandomCutout(0.3, 0.3), K.RandomErasing()],
        bounding_box_format="xyxy",
        fuse=fuse,
    )
    data = tf.data.Dataset.from_tensor_slices(inputs).batch(4)
    changed = next(iter(data.map(lambda x: augmentation(x, training=True))))
    for key in ("labels", "names"):
        np.testing.assert_array_equal(changed[key].numpy().astype(inputs[key].dtype), inputs[key])
    assert changed["labels"].dtype == "int64"
    assert changed["segmentation_masks"].dtype == "int32"
    assert changed["bounding_boxes"]["classes"].dtype == "int64"
    assert changed["bounding_boxes"]["boxes"].shape == (4, 2, 4)
    assert set(np.unique(changed["segmentation_masks"])) == {0, 1}
    assert set(inputs["bounding_boxes"]) == {"boxes", "classes"}
    assert inputs["images"].max() == 200


def test_ragged_boxes_come_back_ragged(inputs):
    boxes = tf.RaggedTensor.from_tensor(inputs["bounding_boxes"]["boxes"][:, :1])
    given = {"boxes": boxes, "classes": tf.ragged.constant([[3]] * 4)}
    changed = augment([CV.RandomFlip()], {**inputs, "bounding_boxes": given})["bounding_boxes"]
    assert isinstance(changed["boxes"], tf.RaggedTensor)
    dense = augment([CV.RandomFlip()], inputs)["bounding_boxes"]["boxes"]
    np.testing.assert_allclose(changed["boxes"].to_tensor(), dense[:, :1], atol=1e-3)


def test_a_box_that_leaves_the_image_goes(inputs):
    away = K.RandomTranslation((1.0, 1.0), 0.0, **BLACK)
    changed = augment([away], inputs)["bounding_boxes"]
    np.testing.assert_array_equal(changed["classes"], -1)
    np.testing.assert_array_equal(changed["boxes"], -1)


@pytest.mark.parametrize("box_format", ["xywh", "rel_xyxy", "center_xywh", "yxyx"])
def test_the_format_of_boxes(box_format, inputs):
    convert = keras_cv.bounding_box.convert_format
    pixels = inputs["bounding_boxes"]["boxes"][:, :1]
    own = "center_xyWH" if box_format == "center_xywh" else box_format
    boxes = convert(pixels, source="xyxy", target=own, images=inputs["images"])
    given = {"boxes": boxes, "classes": np.ones((4, 1))}
    layers = [K.RandomFlip(), K.Resizing(64, 40)]
    changed = augment(layers, {**inputs, "bounding_boxes": given}, bounding_box_format=own)
    expected = augment(layers, inputs)["bounding_boxes"]["boxes"][:, :1]
    back = convert(
        changed["bounding_boxes"]["boxes"], source=own, target="xyxy", images=changed["images"]
    )
    np.testing.assert_allclose(back, expected, atol=1e-3)


def test_the_format_of_the_layers_is_taken():
    augmentation = Augmentation([CV.RandomFlip(bounding_box_format="xywh"), K.RandomRotation(0.1)])
    assert augmentation.bounding_box_format == "xywh"
    assert Augmentation.from_config(augmentation.get_config()).bounding_box_format == "xywh"
    with pytest.raises(ValueError, match=r"`bounding_box_format` must be one for all layers"):
        Augmentation(
            [
                CV.RandomFlip(bounding_box_format="xywh"),
                K.RandomFlip(bounding_box_format="xyxy"),
            ]
        )


def test_at_inference_the_dictionary_passes_and_sizes_follow(inputs):
    given = {key: value for key, value in inputs.items() if key != "names"}
    plain = Augmentation([K.RandomFlip()], bounding_box_format="xyxy")(given)
    np.testing.assert_array_equal(plain["images"], inputs["images"])
    assert set(plain) == set(given)
    resized = Augmentation([K.RandomCrop(16, 20)], bounding_box_format="xyxy")(given)
    boxes = resized["bounding_boxes"]["boxes"]
    np.testing.assert_allclose(boxes[:, 0], inputs["bounding_boxes"]["boxes"][:, 0] / 2, atol=1e-4)
    np.testing.assert_allclose(around(resized["segmentation_masks"][..., 0]), boxes[:, 0], atol=1)
    assert resized["images"].shape == (4, 16, 20, 3)


# Bad input


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"images": None}, r"must have the key 'images'"),
        ({"bounding_boxes": {"boxes": np.zeros((4, 1, 4))}}, r"keys 'boxes' and 'classes'"),
    ],
)
def test_dictionaries_without_what_they_need(change, match, inputs):
    given = {k: v for k, v in {**inputs, **change}.items() if v is not None and k != "names"}
    with pytest.raises(ValueError, match=match):
        Augmentation([K.RandomFlip()], bounding_box_format="xyxy")(given, training=True)


def test_boxes_without_a_format(inputs):
    with pytest.raises(ValueError, match=r"`bounding_box_format` must be known"):
        augment([K.RandomFlip()], inputs, bounding_box_format=None)


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (None, r"'mix_up.*needs labels.*one-hot floats"),
        (np.arange(4), r"needs one-hot labels.*shape \(4,\), dtype int64"),
    ],
)
@pytest.mark.parametrize("layer", [CV.MixUp(), K.MixUp()], ids=["KerasCV", "Keras"])
def test_a_layer_that_mixes_needs_one_hot_labels(layer, labels, match, inputs):
    given = {"images": inputs["images"], "labels": labels}
    given = {key: value for key, value in given.items() if value is not None}
    with pytest.raises(ValueError, match=match):
        Augmentation([layer])(given, training=True)


def test_a_layer_that_needs_boxes(inputs):
    with pytest.raises(ValueError, match=r"'max_num.*needs bounding boxes.*keys \['images'\]"):
        Augmentation([K.MaxNumBoundingBoxes(3)])({"images": inputs["images"]}, training=True)


@pytest.mark.parametrize(
    "layer", [CV.RandomZoom(0.2), CV.RandomApply(CV.RandomFlip()), K.RandomElasticTransform()]
)
def test_a_layer_that_cannot_move_boxes_is_named(layer, inputs):
    with pytest.raises(ValueError, match=r"must transform \['bounding_boxes', .*class Random"):
        augment([layer], inputs, fuse=False)


def test_a_dictionary_is_not_for_a_functional_model():
    with pytest.raises(TypeError, match=r"tensors or arrays.*in tf\.data"):
        Augmentation([K.RandomFlip()])({"images": keras.Input((8, 8, 3))})


def test_number_of_boxes_can_be_fixed(inputs):
    changed = augment([K.RandomFlip(), K.MaxNumBoundingBoxes(5)], inputs)["bounding_boxes"]
    assert changed["boxes"].shape == (4, 5, 4)
    np.testing.assert_array_equal(changed["classes"], [[3, -1, -1, -1, -1]] * 4)
