"""Backbones of KerasCV: models like any other, with their scaling inside."""

import keras
import numpy as np
import pytest

from kerasopt.transfer import blocks, build_classifier, split_layers

RESNET = {
    "stackwise_filters": [8, 16, 16, 24],
    "stackwise_blocks": [2, 2, 2, 2],
    "stackwise_strides": [1, 2, 2, 2],
}
EFFICIENTNET = {
    "stackwise_kernel_sizes": [3, 5],
    "stackwise_num_repeats": [1, 2],
    "stackwise_input_filters": [32, 16],
    "stackwise_output_filters": [16, 24],
    "stackwise_strides": [1, 2],
    "width_coefficient": 0.5,
    "depth_coefficient": 1.0,
}
FIXED = {"input_shape": (64, 64, 3)}

# The arguments of a small one of each family, and its blocks.
BACKBONES = {
    "ResNetV2Backbone": (
        RESNET,
        ["conv1", *(f"v2_stack_{s}" for s in ("0_block1", "0_block2", "1_block1"))],
    ),
    "ResNetBackbone": (
        RESNET,
        ["conv1", *(f"v2_stack_{s}" for s in ("0_block1", "0_block2", "1_block1"))],
    ),
    "EfficientNetV2Backbone": (
        {
            **EFFICIENTNET,
            "stackwise_expansion_ratios": [1, 4],
            "stackwise_squeeze_and_excite_ratios": [0, 0.25],
            "stackwise_conv_types": ["fused", "unfused"],
        },
        ["stem", "block1a", "block2a", "block2b", "top"],
    ),
    "EfficientNetV1Backbone": (
        {
            **EFFICIENTNET,
            "stackwise_expansion_ratios": [1, 6],
            "stackwise_squeeze_and_excite_ratios": [0.25, 0.25],
        },
        ["stem", "block1a", "block2a", "block2b", "top"],
    ),
    "EfficientNetLiteBackbone": (
        {**EFFICIENTNET, "stackwise_expansion_ratios": [1, 6]},
        ["stem", "block1a", "block2a", "block2b", "top"],
    ),
    # Two whose layers cannot be saved singly: they stay one layer, with all blocks.
    "MobileNetV3Backbone": (
        {
            "stackwise_expansion": [1, 4, 3],
            "stackwise_filters": [16, 24, 24],
            "stackwise_kernel_size": [3, 3, 5],
            "stackwise_stride": [2, 2, 1],
            "stackwise_se_ratio": [0.25, None, 0.25],
            "stackwise_activation": ["relu", "relu", "hard_swish"],
        },
        ["Conv", "expanded_conv", "expanded_conv_1", "expanded_conv_2", "Conv_1"],
    ),
    "CSPDarkNetBackbone": (
        {"stackwise_channels": [16, 32, 32, 48], "stackwise_depth": [1, 2, 1, 1]},
        ["stem", "dark2", "dark3", "dark4", "dark5"],
    ),
    "DenseNetBackbone": (
        {"stackwise_num_repeats": [2, 1]},
        ["conv1", "conv2_block_0", "conv2_block_1", "pool2", "conv3_block_0"],
    ),
    "VGG16Backbone": (
        {"include_top": False, **FIXED},
        ["block1", "block2", "block3", "block4", "block5"],
    ),
    "YOLOV8Backbone": (
        {"stackwise_channels": [16, 32, 32, 48], "stackwise_depth": [1, 1, 1, 1]},
        ["stem", "stack1", "stack2", "stack3", "stack4"],
    ),
    # Never smaller after its patches: a block is a transformer block.
    "ViTDetBackbone": (
        {
            **FIXED,
            "embed_dim": 16,
            "depth": 3,
            "num_heads": 2,
            "mlp_dim": 32,
            "out_chans": 8,
            "window_size": 2,
            "global_attention_indices": [1],
        },
        [f"stage{n}" for n in range(1, 6)],
    ),
}


# KerasCV warns of its own layers; keras_cv is imported here, as no other test needs it.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_of_keras_cv(name, rng, tmp_path):
    import keras_cv

    arguments, names = BACKBONES[name]
    backbone = getattr(keras_cv.models, name)(include_rescaling=True, **arguments)
    model = build_classifier(backbone, 3, input_shape=(64, 64, 3))
    pixels = rng.integers(0, 256, (2, 64, 64, 3)).astype("float32")

    expected = np.mean(backbone(pixels), (1, 2))
    pool = keras.Model(model.input, model.get_layer("head_pool").output)
    np.testing.assert_allclose(pool(pixels), expected, rtol=1e-4, atol=1e-5)
    assert [block.name for block in blocks(model)][: len(names)] == names
    grouped = [id(w) for b in blocks(model) for layer in b.layers for w in layer.weights]
    assert sorted(grouped) == sorted(id(w) for la in split_layers(model)[0] for w in la.weights)
    assert len(grouped) == len(backbone.weights)

    before = [weight.numpy() for weight in backbone.weights]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, clipnorm=1.0), loss)
    model.fit(pixels, np.array([0, 1]), verbose=0)
    for weight, old in zip(backbone.weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    answer = np.asarray(model(pixels))
    assert np.isfinite(answer).all()
    np.testing.assert_array_equal(again(pixels), answer)
    assert [block.name for block in blocks(again)] == [block.name for block in blocks(model)]
