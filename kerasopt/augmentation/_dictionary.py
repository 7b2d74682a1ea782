"""Dictionaries of images with boxes, masks and labels, as KerasCV takes them in `tf.data`."""

from collections.abc import Sequence
from typing import Any

from kerasopt._backend import tf
from kerasopt.augmentation._draws import kind_of
from kerasopt.augmentation._keras_cv import keras_cv
from kerasopt.augmentation._layer_rules import (
    box_format,
    boxes_layer,
    kinds,
    mixes,
    mixing_layer,
    moves_images_only,
    unwrapped,
)

_TRANSFORMED = ("images", "bounding_boxes", "segmentation_masks", "keypoints")
_PADDING = -1.0
_FRACTIONS = "rel_xyxy"  # how boxes stand between the layers


def check_dictionary(inputs: dict[str, Any], layers: Sequence[Any], boxes_as: str | None) -> None:
    """Raises ValueError or TypeError where a layer does not get what it needs."""
    check_keys(inputs)
    _check_labels(inputs, mixing_layer(layers))
    needs_boxes = boxes_layer(layers)
    if needs_boxes is not None and "bounding_boxes" not in inputs:
        raise ValueError(
            f"Layer {needs_boxes.name!r} of class {type(needs_boxes).__name__} needs bounding "
            f"boxes. Received: a dictionary with keys {sorted(inputs)}. "
            "Add 'bounding_boxes': {'boxes': ..., 'classes': ...}."
        )
    if "bounding_boxes" in inputs:
        _check_boxes(inputs["bounding_boxes"], boxes_as)


def check_keys(inputs: dict[str, Any]) -> None:
    """Raises ValueError unless a dictionary holds images."""
    if "images" not in inputs:
        raise ValueError(
            f"A dictionary must have the key 'images'. Received: keys {sorted(inputs)}."
        )


def prepare(inputs: dict[str, Any], boxes_as: str | None) -> dict[str, Any]:
    """Copies a dictionary: images and masks in float32, boxes dense and in fractions."""
    data = dict(inputs)
    for key in ("images", "segmentation_masks"):
        if key in data:
            data[key] = tf.cast(data[key], tf.float32)
    if "bounding_boxes" in data:
        data["bounding_boxes"] = _open_boxes(data["bounding_boxes"], data["images"], boxes_as)
    return data


def restore(
    data: dict[str, Any], inputs: dict[str, Any], boxes_as: str | None, count: int | None
) -> dict[str, Any]:
    """Gives masks and boxes back in the form that `inputs` had.

    Args:
        data: what `prepare` returned, transformed.
        inputs: what `prepare` was given.
        boxes_as: the format of the boxes in `inputs`.
        count: how many boxes of each image are given back where they are dense, see `box_count`.
    """
    data = dict(data)
    if "segmentation_masks" in inputs:
        dtype = tf.as_dtype(inputs["segmentation_masks"].dtype)
        data["segmentation_masks"] = tf.cast(data["segmentation_masks"], dtype)
    if "bounding_boxes" in inputs:
        data["bounding_boxes"] = _close_boxes(
            data["bounding_boxes"],
            data["images"],
            inputs["bounding_boxes"],
            boxes_as,
            count,
        )
    return data


def box_count(inputs: dict[str, Any], layers: Sequence[Any]) -> int | None:
    """Returns the number of boxes, with padding, that dense boxes have behind the layers."""
    if "bounding_boxes" not in inputs or any(mixes(layer) for layer in layers):
        return None
    fixes = boxes_layer(layers)
    count: int | None = inputs["bounding_boxes"]["boxes"].shape[1]
    return count if fixes is None else fixes.max_number


def run_segment(segment: Any, data: dict[str, Any]) -> dict[str, Any]:
    """Runs a fused segment: one set of matrices for images, masks and boxes."""
    if segment.kind != "geometry":
        return {**data, "images": segment(data["images"])}
    images = data["images"]
    size = tf.shape(images)
    matrices = segment.matrices(size[0], size[1], size[2])
    data = {**data, "images": segment.apply(images, matrices)}
    if "segmentation_masks" in data:
        masks = segment.apply(data["segmentation_masks"], matrices, interpolation="nearest")
        data["segmentation_masks"] = masks
    if "bounding_boxes" in data:
        data["bounding_boxes"] = _warp_boxes(data["bounding_boxes"], matrices, size)
    return data


def run_layer(layer: Any, data: dict[str, Any], call: Any) -> dict[str, Any]:
    """Runs one layer on what it transforms; the rest of the dictionary passes.

    Args:
        layer: the layer.
        data: what `prepare` returned.
        call: function of the layer's input that returns its output.

    Raises:
        ValueError: the layer cannot transform something that is in the dictionary.
    """
    # Labels of a layer that does not mix them are kept from it: KerasCV would cast them.
    visible = data if mixes(layer) else {k: v for k, v in data.items() if k in _TRANSFORMED}
    if set(visible) == {"images"} or kind_of(layer) == ("kerasopt", "RGBOnly"):
        return {**data, "images": call(data["images"])}
    if "bounding_boxes" in visible:
        visible = {**visible, "bounding_boxes": dict(visible["bounding_boxes"])}
    if "keras_cv.Resizing" in kinds(layer) and not layer.pad_to_aspect_ratio:
        return {**data, **_resize(layer, visible, call)}
    try:
        changed = _call_with_names(layer, visible, call)
    except (AttributeError, KeyError, NotImplementedError, TypeError, ValueError) as error:
        others = sorted(set(visible) - {"images"})
        raise ValueError(
            f"`layers` must transform {others} together with images. "
            f"Received: layer {layer.name!r} of class {type(unwrapped(layer)).__name__}, which "
            f"does not ({type(error).__name__}). Leave it out, or look for the layer of that "
            "name in the other library."
        ) from error
    if "bounding_boxes" in changed:
        dense = keras_cv().bounding_box.to_dense(changed["bounding_boxes"], default_value=_PADDING)
        changed["bounding_boxes"] = {key: dense[key] for key in ("boxes", "classes")}
    return {**data, **changed}


def _check_labels(inputs: dict[str, Any], layer: Any) -> None:
    if layer is None:
        return
    labels = inputs.get("labels", inputs.get("targets"))
    title = f"Layer {layer.name!r} of class {type(layer).__name__}"
    if labels is None:
        raise ValueError(
            f"{title} needs labels. Received: a dictionary with keys {sorted(inputs)}. "
            "Add 'labels', one-hot floats of shape (batch, classes)."
        )
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank != 2 or not labels.dtype.is_floating:
        raise ValueError(
            f"{title} needs one-hot labels, floats of shape (batch, classes). "
            f"Received: shape {tuple(labels.shape)}, dtype {labels.dtype.name}. "
            "Use keras.ops.one_hot(labels, classes)."
        )


def _check_boxes(boxes: Any, boxes_as: str | None) -> None:
    if not isinstance(boxes, dict) or not {"boxes"} < set(boxes) <= {"boxes", "classes", "labels"}:
        keys = sorted(boxes) if isinstance(boxes, dict) else type(boxes).__name__
        raise ValueError(
            "`bounding_boxes` must be a dictionary with the keys 'boxes' and 'classes'. "
            f"Received: bounding_boxes={keys}."
        )
    if boxes_as is None:
        raise ValueError(
            "`bounding_box_format` must be known for bounding boxes. "
            "Received: bounding_box_format=None. Give it to Augmentation, such as "
            'bounding_box_format="xyxy".'
        )


def _open_boxes(given: dict[str, Any], images: Any, boxes_as: str | None) -> dict[str, Any]:
    boxes, classes = given["boxes"], given.get("classes", given.get("labels"))
    if isinstance(boxes, tf.RaggedTensor):
        boxes = boxes.to_tensor(_PADDING, shape=(None, None, 4))
    classes = tf.cast(classes, tf.float32)
    if isinstance(classes, tf.RaggedTensor):
        classes = classes.to_tensor(_PADDING)
    boxes = keras_cv().bounding_box.convert_format(
        tf.cast(boxes, tf.float32), source=boxes_as, target=_FRACTIONS, images=images
    )
    return _mark(boxes, classes)


def _close_boxes(
    given: dict[str, Any],
    images: Any,
    like: dict[str, Any],
    boxes_as: str | None,
    count: int | None,
) -> dict[str, Any]:
    key = "classes" if "classes" in like else "labels"
    valid = given["classes"] >= 0
    boxes = keras_cv().bounding_box.convert_format(
        given["boxes"], source=_FRACTIONS, target=boxes_as, images=images
    )
    boxes = tf.ragged.boolean_mask(boxes, valid)
    classes = tf.ragged.boolean_mask(given["classes"], valid)
    if not isinstance(like["boxes"], tf.RaggedTensor):
        boxes = boxes.to_tensor(_PADDING, shape=(None, count, 4))
        classes = classes.to_tensor(_PADDING, shape=(None, count))
    return {"boxes": boxes, key: tf.cast(classes, tf.as_dtype(like[key].dtype))}


def _mark(boxes: Any, classes: Any) -> dict[str, Any]:
    """Fills the boxes of no class."""
    return {"boxes": tf.where(classes[..., None] < 0, _PADDING, boxes), "classes": classes}


def _warp_boxes(given: dict[str, Any], matrices: Any, size: Any) -> dict[str, Any]:
    """Returns the boxes around the warped corners, clipped to the image; what is outside goes."""
    height, width = tf.cast(size[1], tf.float32), tf.cast(size[2], tf.float32)
    # Between fractions of the image and pixels, whose centres lie at whole numbers.
    to_pixels = tf.stack([[width, 0.0, -0.5], [0.0, height, -0.5], [0.0, 0.0, 1.0]])
    forward = tf.linalg.inv(tf.linalg.inv(to_pixels) @ matrices @ to_pixels)
    left, top, right, bottom = tf.unstack(given["boxes"], axis=-1)
    xs, ys = (left, right, right, left), (top, top, bottom, bottom)
    corners = [tf.stack((x, y, tf.ones_like(x)), axis=-1) for x, y in zip(xs, ys, strict=True)]
    moved = tf.einsum("bij,bnkj->bnki", forward, tf.stack(corners, axis=2))
    points = tf.clip_by_value(moved[..., :2] / moved[..., 2:], 0.0, 1.0)
    low, high = tf.reduce_min(points, axis=2), tf.reduce_max(points, axis=2)
    gone = tf.reduce_any(high <= low, axis=-1)
    return _mark(tf.concat([low, high], axis=-1), tf.where(gone, _PADDING, given["classes"]))


def _resize(layer: Any, data: dict[str, Any], call: Any) -> dict[str, Any]:
    """Runs KerasCV's `Resizing`, which takes no boxes unless it pads: fractions stay."""
    boxes = data.pop("bounding_boxes", None)
    if boxes is not None and layer.crop_to_aspect_ratio:
        raise ValueError(
            f"Layer {layer.name!r} of class Resizing cannot transform bounding boxes with "
            "crop_to_aspect_ratio=True. Use keras.layers.Resizing."
        )
    changed = dict(call(data)) if len(data) > 1 else {"images": call(data["images"])}
    changed = {key: value for key, value in changed.items() if value is not None}
    return changed if boxes is None else {**changed, "bounding_boxes": boxes}


def _call_with_names(layer: Any, visible: dict[str, Any], call: Any) -> dict[str, Any]:
    """Calls a layer with boxes in the words of its library: KerasCV has classes, Keras labels.

    Raises:
        NotImplementedError: boxes and masks would not fit the images any longer.
    """
    if moves_images_only(layer):
        raise NotImplementedError
    if box_format(layer) == _FRACTIONS or "bounding_boxes" not in visible:
        return dict(call(dict(visible)))
    given = visible["bounding_boxes"]
    boxes = given["boxes"] * _ends(visible["images"])
    # Keras's RandomCrop subtracts the row of its window from x, and the column from y.
    order = [1, 0, 3, 2] if "keras.RandomCrop" in kinds(layer) else [0, 1, 2, 3]
    boxes = tf.gather(boxes, order, axis=-1)
    renamed = {"boxes": boxes, "labels": given["classes"]}
    changed = dict(call({**visible, "bounding_boxes": renamed}))
    boxes = tf.gather(changed["bounding_boxes"]["boxes"], order, axis=-1)
    classes = tf.cast(changed["bounding_boxes"]["labels"], tf.float32)
    boxes = tf.clip_by_value(boxes / _ends(changed["images"]), 0.0, 1.0)
    gone = tf.reduce_any(boxes[..., 2:] <= boxes[..., :2], axis=-1)
    changed["bounding_boxes"] = _mark(boxes, tf.where(gone, _PADDING, classes))
    return changed


def _ends(images: Any) -> Any:
    """Returns width, height, width, height."""
    size = tf.cast(tf.shape(images), tf.float32)
    return tf.stack([size[2], size[1], size[2], size[1]])
