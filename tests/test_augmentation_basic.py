"""The recipe and the preview."""

import keras
import numpy as np
import pytest

import kerasopt as ko

OFF = {
    "flip": None,
    "rotation": 0,
    "zoom": 0,
    "crop": 0,
    "brightness": 0,
    "contrast": 0,
    "saturation": 0,
    "hue": 0,
}


def only(**parts):
    return ko.augmentation.basic(**{**OFF, **parts}, seed=0)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(0, 255, (4, 12, 12, 3)).astype("float32")


def augment(augmentation, images):
    return np.asarray(augmentation(images, training=True))


def test_all_five_parts_by_default():
    classes = [type(layer).__name__ for layer in ko.augmentation.basic().layers]
    assert classes[:4] == ["RandomFlip", "RandomRotation", "RandomZoom", "RandomTranslation"]
    assert classes[4:] == ["RandomBrightness", "RandomContrast", "RGBOnly"]
    assert ko.augmentation.basic().name == "augmentation"


@pytest.mark.parametrize(
    ("flip", "axes"),
    [(True, [2]), ("horizontal", [2]), ("vertical", [1]), ("both", [1, 2])],
)
def test_flips_half_of_the_images(flip, axes, images):
    many = np.repeat(images[:1], 4000, axis=0)[:, :4, :4]
    flipped = augment(only(flip=flip), many)
    candidates = {(): many[0], **{(axis,): np.flip(many[0], axis - 1) for axis in axes}}
    if len(axes) == 2:
        candidates[(1, 2)] = np.flip(many[0], (0, 1))
    rates = [
        np.mean([np.array_equal(image, candidate) for image in flipped])
        for candidate in candidates.values()
    ]
    np.testing.assert_allclose(rates, 1 / len(candidates), atol=0.03)
    assert sum(rates) == pytest.approx(1)


def test_brightness_shifts_by_a_fraction_of_the_range():
    grey = np.full((3000, 2, 2, 3), 0.5, "float32")
    shifts = augment(only(brightness=0.2, value_range=(-1, 2)), grey)[:, 0, 0, 0] - 0.5
    assert np.abs(shifts).max() <= 0.6 + 1e-5
    np.testing.assert_allclose([shifts.min(), shifts.max()], [-0.6, 0.6], atol=0.01)
    assert abs(shifts.mean()) < 0.03


def test_contrast_goes_both_ways():
    image = np.tile(np.array([100.0, 150.0], "float32")[None, :, None, None], (3000, 1, 2, 3))
    changed = augment(only(contrast=0.4), image)
    factors = (changed[:, 1, 0, 0] - changed[:, 0, 0, 0]) / 50
    np.testing.assert_allclose(changed.mean((1, 2, 3)), 125, rtol=1e-4)
    np.testing.assert_allclose([factors.min(), factors.max()], [0.6, 1.4], atol=0.01)
    assert factors.mean() == pytest.approx(1, abs=0.02)


def test_saturation_fades_towards_grey():
    red = np.tile(np.array([200.0, 20.0, 20.0], "float32"), (2000, 2, 2, 1))
    faded = augment(only(saturation=0.5), red)
    spread = (faded.max(-1) - faded.min(-1))[:, 0, 0] / 180
    np.testing.assert_allclose([spread.min(), spread.max()], [0.5, 1.0], atol=0.01)


def test_rotation_and_zoom_keep_a_constant_image_and_move_others(images):
    for augmentation in (only(rotation=0.1), only(zoom=0.3), only(crop=0.2)):
        constant = np.full((2, 9, 9, 3), 77.0, "float32")
        np.testing.assert_allclose(augment(augmentation, constant), 77, rtol=1e-4)
        assert np.abs(augment(augmentation, images) - images).mean() > 1


def test_crop_shifts_by_at_most_its_fraction():
    ramp = np.tile(np.arange(20, dtype="float32")[None, None, :, None], (500, 20, 1, 1))
    shift = (augment(only(crop=0.1), ramp) - ramp)[:, 10, 10, 0]
    assert np.abs(shift).max() <= 2 + 1e-4
    np.testing.assert_allclose([shift.min(), shift.max()], [-2, 2], atol=0.1)


@pytest.mark.parametrize("value_range", [(0, 255), (0, 1), (-1, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_stays_in_the_range(value_range, channels, rng):
    low, high = value_range
    noise = rng.uniform(low, high, (8, 10, 10, channels))
    extremes = np.where(noise > (low + high) / 2, high, low).astype("float32")
    augmentation = ko.augmentation.basic(
        flip="both",
        rotation=1,
        zoom=0.5,
        crop=0.5,
        brightness=0.7,
        contrast=1,
        saturation=1,
        hue=0.5 if low == 0 else 0,
        value_range=value_range,
        seed=0,
    )
    changed = augment(augmentation, extremes)
    assert changed.shape == extremes.shape
    slack = 1e-4 * (high - low)
    assert changed.min() >= low - slack
    assert changed.max() <= high + slack


def test_hue_and_saturation_leave_grey_images_alone(rng):
    grey = rng.uniform(0, 255, (3, 8, 8, 1)).astype("float32")
    np.testing.assert_array_equal(augment(only(saturation=0.5, hue=0.3), grey), grey)


def test_round_trip():
    augmentation = ko.augmentation.basic(hue=0.1, seed=3)
    clone = type(augmentation).from_config(augmentation.get_config())
    assert clone.get_config() == augmentation.get_config()


@pytest.mark.parametrize("name", [name for name in OFF if name != "flip"])
@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_strengths_must_be_fractions(name, value):
    with pytest.raises(ValueError, match=rf"`{name}` must be a number in \[0, 1.*{name}="):
        ko.augmentation.basic(**{name: value})


def test_zoom_must_leave_something():
    with pytest.raises(ValueError, match=r"`zoom` must be a number in \[0, 1\)\. Received: zoom=1"):
        ko.augmentation.basic(zoom=1)


def test_strengths_must_be_numbers():
    with pytest.raises(TypeError, match=r"`rotation` must be a number in \[0, 1\]"):
        ko.augmentation.basic(rotation="0.1")


def test_flip_must_be_known():
    with pytest.raises(ValueError, match=r"`flip` must be one of .*Did you mean 'horizontal'"):
        ko.augmentation.basic(flip="horizontl")


@pytest.mark.parametrize(
    ("value_range", "error", "message"),
    [
        (255, TypeError, r"must be a pair \(low, high\)"),
        ((0, 1, 2), TypeError, r"must be a pair \(low, high\)"),
        ((255, 0), ValueError, r"must be increasing"),
        ((0, float("inf")), ValueError, r"must be a number"),
    ],
)
def test_value_range_must_be_increasing(value_range, error, message):
    with pytest.raises(error, match=f"`value_range` {message}"):
        ko.augmentation.basic(value_range=value_range)


def test_hue_needs_a_range_from_0():
    with pytest.raises(ValueError, match=r"`value_range` must begin at 0 where `hue` is used"):
        ko.augmentation.basic(hue=0.1, value_range=(-1, 1))


def test_something_must_be_on():
    with pytest.raises(ValueError, match=r"`basic` must have at least one part"):
        only()


# preview


def test_preview_has_the_originals_in_the_first_column(images):
    figure = ko.augmentation.preview(only(flip=True), images, rows=3, columns=4)
    assert len(figure.axes) == 12
    for row in range(3):
        shown = [np.asarray(cell.images[0].get_array()) for cell in figure.axes[4 * row :][:4]]
        np.testing.assert_allclose(shown[0], images[row] / 255, atol=1e-6)
        for picture in shown[1:]:
            mirrored = np.allclose(picture, shown[0][:, ::-1], atol=1e-6)
            assert mirrored or np.allclose(picture, shown[0], atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 8, 8, 1), (8, 8, 3)])
def test_preview_takes_grey_images_and_a_single_one(shape, rng, tmp_path):
    photos = rng.integers(0, 256, shape).astype("uint8")
    figure = ko.augmentation.preview(only(flip=True), photos, rows=2, columns=3)
    assert len(figure.axes) == (6 if len(shape) == 4 else 3)
    figure.savefig(tmp_path / "preview.png")
    assert (tmp_path / "preview.png").read_bytes()[:4] == b"\x89PNG"


def test_preview_refuses_what_it_cannot_draw(images):
    augmentation = only(flip=True)
    with pytest.raises(ValueError, match=r"1 or 3 channels\. Received: images of shape \(4, 12\)"):
        ko.augmentation.preview(augmentation, images[:, :, 0, 0])
    with pytest.raises(ValueError, match=r"Received: images of shape \(4, 12, 12, 2\)"):
        ko.augmentation.preview(augmentation, images[..., :2])
    with pytest.raises(ValueError, match=r"`rows` must be an integer >= 1\. Received: rows=0"):
        ko.augmentation.preview(augmentation, images, rows=0)
    with pytest.raises(ValueError, match=r"`columns` must be an integer >= 2"):
        ko.augmentation.preview(augmentation, images, columns=1)
    with pytest.raises(TypeError, match=r"`augmentation` must be a Keras layer"):
        ko.augmentation.preview(lambda x: x, images)


def test_preview_takes_any_keras_layer(images):
    figure = ko.augmentation.preview(keras.layers.RandomFlip(), images, rows=1, columns=2)
    assert len(figure.axes) == 2
