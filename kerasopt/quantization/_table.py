"""What TFLite's int8 does with each operation: one table, measured operator by operator."""

import dataclasses
from collections.abc import Callable
from typing import Any

from kerasopt.quantization import _attention as attention
from kerasopt.quantization import _decompositions as parts
from kerasopt.quantization import _exceptions as exceptions
from kerasopt.quantization._steps import TANH, UNIT


@dataclasses.dataclass(frozen=True)
class Rule:
    """How an operation is quantized.

    Args:
        kind: one of
            `"kernel"`: int8 kernel; what is behind it may be fused with it;
            `"norm"`: BatchNormalization, fused with the kernel before it, else like `"affine"`;
            `"affine"`: a scale and an offset per channel, a 1x1 convolution in the file;
            `"relu"`: fused with what is before it;
            `"sum"`: a range of its own; a ReLU behind it is fused;
            `"own"`: a range of its own;
            `"fixed"`: a range known beforehand;
            `"same"`: keeps the range of its input;
            `"dropped"`: not in the file; what reads it reads its input;
            `"join"`: inputs and output share one range;
            `"shared"`: rounds to the range of its input;
            `"float"`: a float island between two ranges.
        steps: for an operation that becomes several in int8: the function that takes them, and
            `kind` says how the last of them is treated.
        reason: why it is float, or partly float.
        fixed_range: for `"fixed"`, or where a ReLU ends.
        weights: for a float island: its weights are trained with int8 levels all the same.
        leaks: for a float island of which the converter would make parts int8; it is then walled
            off with an operator that has no int8 kernel.
        ties: for `"shared"`: `"away"` for averages, which TFLite rounds away from int8 zero; `"up"`
            for interpolation. For `"own"`: `"even"` for means, which it rounds to even int8 values;
            it counts where a mean has the range of its input.
    """

    kind: str
    steps: Callable[..., Any] | None = None
    reason: str = ""
    fixed_range: tuple[float, float] | None = None
    weights: bool = False
    leaks: bool = False
    ties: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table: a rule and whatever follows it.

    Args:
        rule: the rule.
        layers: names of Keras layers.
        functions: names of activations and of `keras.ops`.
        unless: for options that change the rule: takes the operation and its `Node` (or `None`),
            returns a reason to stay float, a `dataclasses.replace` of fields as a dict, or `None`.
        note: what the file has for it, for the docs.
    """

    rule: Rule
    layers: str = ""
    functions: str = ""
    unless: Callable[[Any, Any], Any] | None = None
    note: str = ""


_FLOAT_SOFT = "TFLite has no int8 kernel for its exponential and logarithm"

TABLE: tuple[Row, ...] = (
    Row(
        Rule("kernel"),
        layers="Conv1D Conv2D DepthwiseConv1D DepthwiseConv2D Conv1DTranspose Conv2DTranspose "
        "Dense",
        unless=exceptions.kernel,
        note="int8 kernel, one scale per output channel; a range behind its group",
    ),
    Row(
        Rule("kernel"),
        layers="EinsumDense",
        unless=exceptions.einsum,
        note="as `Dense`",
    ),
    Row(
        Rule("kernel", parts.separable_convolution),
        layers="SeparableConv1D SeparableConv2D",
        unless=exceptions.kernel,
        note="a depthwise convolution, a range, a 1×1 convolution",
    ),
    Row(
        Rule("kernel", parts.time_distributed),
        layers="TimeDistributed",
        unless=exceptions.time_distributed,
        note="the layer inside, once, on all steps (for `Dense`, `Conv1D`, `Conv2D`)",
    ),
    Row(
        Rule("norm"),
        layers="BatchNormalization",
        unless=exceptions.norm,
        note="folded into the kernel before it, else a 1×1 depthwise convolution",
    ),
    Row(
        Rule("affine"),
        layers="Rescaling Normalization LayerScale",
        unless=exceptions.affine,
        note="a 1×1 depthwise convolution",
    ),
    Row(
        Rule("relu"),
        layers="ReLU",
        functions="relu relu6",
        unless=exceptions.relu,
        note="fused with what is before it",
    ),
    Row(
        Rule("relu", fixed_range=TANH),
        functions="hard_tanh",
        note="fused with what is before it; fixed range, −1 to 127/128",
    ),
    Row(
        Rule("relu", parts.clip),
        functions="clip",
        unless=exceptions.clip,
        note="the range behind it, which is fixed",
    ),
    Row(
        Rule("sum"),
        layers="Add Subtract Multiply",
        functions="add subtract multiply",
        unless=exceptions.merge,
        note="a range of its own; a ReLU behind it is fused; constants get levels of their own",
    ),
    Row(
        Rule("sum", parts.average),
        layers="Average",
        note="a chain of sums, a factor",
    ),
    Row(
        Rule("own"),
        functions="divide true_divide",
        unless=exceptions.divide,
        note="a product with the inverse; float when the divisor is not a constant",
    ),
    Row(Rule("sum", parts.negative), functions="negative", note="a product with −1"),
    Row(Rule("sum", parts.square), functions="square power", unless=exceptions.power, note="x · x"),
    Row(
        Rule("own", ties="even"),
        layers="GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D",
        functions="mean",
        unless=exceptions.own,
        note="a range of its own; ties as in TFLite where it shares that of its input",
    ),
    Row(
        Rule("own"),
        functions="gelu hard_silu exponential exp absolute matmul einsum",
        unless=exceptions.own,
        note="a range of its own",
    ),
    Row(
        Rule("own", parts.total),
        functions="sum",
        unless=exceptions.total,
        note="a mean times the number of values",
    ),
    Row(
        Rule("shared", parts.leaky_relu),
        layers="LeakyReLU",
        functions="leaky_relu",
        unless=exceptions.leaky,
        note="rounds to the range of its input; the slope in 1/256",
    ),
    Row(
        Rule("own", parts.prelu),
        layers="PReLU",
        note="slopes on int8 levels with one scale",
    ),
    Row(
        Rule("own", parts.tanh_shrink),
        functions="tanh_shrink",
        note="x less a tanh with its own range",
    ),
    Row(Rule("own", parts.silu), functions="silu", note="x times a sigmoid with its own range"),
    Row(
        Rule("own", parts.mish, reason=_FLOAT_SOFT),
        functions="mish",
        note="x times a tanh; softplus is float",
    ),
    Row(
        Rule("fixed", parts.hard_sigmoid, fixed_range=(0.0, 1.0)),
        functions="hard_sigmoid",
        note="a sum with a ReLU6, a factor",
    ),
    Row(
        Rule("fixed", fixed_range=UNIT),
        layers="Softmax",
        functions="sigmoid softmax",
        unless=exceptions.fixed,
        note="fixed range, 0 to 255/256",
    ),
    Row(
        Rule("fixed", fixed_range=TANH),
        functions="tanh",
        note="fixed range, −1 to 127/128",
    ),
    Row(
        Rule("fixed", fixed_range=(-255.0 / 16.0, 0.0)),
        functions="log_softmax",
        note="fixed range, −255/16 to 0",
    ),
    Row(
        Rule("same"),
        layers="MaxPooling1D MaxPooling2D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D "
        "AdaptiveMaxPooling1D AdaptiveMaxPooling2D Flatten Reshape Permute RepeatVector "
        "ZeroPadding1D ZeroPadding2D ZeroPadding3D Cropping1D Cropping2D Cropping3D CenterCrop "
        "UpSampling1D UpSampling3D",
        functions="get_item reshape ravel transpose swapaxes moveaxis expand_dims squeeze "
        "split take tile repeat max max_pool broadcast_to cast identity",
        note="keeps the range of its input",
    ),
    Row(
        Rule("same"),
        functions="pad",
        unless=exceptions.pad,
        note="keeps the range of its input, widened to hold the constant",
    ),
    Row(
        Rule("dropped"),
        layers="Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D GaussianNoise "
        "GaussianDropout AlphaDropout Identity ActivityRegularization StochasticDepth",
        functions="linear stop_gradient convert_to_tensor",
        unless=exceptions.converted,
        note="not in the file",
    ),
    Row(
        Rule("dropped"),
        layers="AugMix CutMix Equalization MixUp RandAugment RandomBrightness "
        "RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop "
        "RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale "
        "RandomHue RandomInvert RandomPerspective RandomPosterization RandomRotation "
        "RandomSaturation RandomSharpness RandomShear RandomTranslation RandomZoom Solarization",
        unless=exceptions.augmentation,
        note="not in the file; float where `RandomCrop` changes the size",
    ),
    Row(
        Rule("shared", ties="up"),
        layers="UpSampling2D Resizing",
        unless=exceptions.resize,
        note="rounds to the range of its input; keeps it when it takes the nearest pixel",
    ),
    Row(
        Rule("shared"),
        functions="flip",
        note="the range of its input",
    ),
    Row(
        Rule("shared", ties="away"),
        layers="AveragePooling1D AveragePooling2D",
        functions="average_pool",
        unless=exceptions.kernel,
        note="rounds to the range of its input, ties as in TFLite",
    ),
    Row(
        Rule("float", reason="its averages of averages would be rounded one by one", leaks=True),
        layers="AdaptiveAveragePooling1D AdaptiveAveragePooling2D",
    ),
    Row(
        Rule("join"),
        layers="Concatenate Maximum Minimum",
        functions="concatenate stack maximum minimum where",
        unless=exceptions.join,
        note="inputs, constants and output share one range; `maximum(x, 0)` is a ReLU",
    ),
    Row(
        Rule("own", parts.layer_normalization),
        layers="LayerNormalization RMSNormalization",
        unless=exceptions.layer_norm,
        note="mean, difference, square, mean, rsqrt, product, each with a range; scale and offset "
        "as a 1×1 depthwise convolution",
    ),
    Row(
        Rule("own", parts.group_normalization),
        layers="GroupNormalization",
        unless=exceptions.group_norm,
        note="as `LayerNormalization`",
    ),
    Row(
        Rule("kernel", attention.multi_head_attention),
        layers="MultiHeadAttention GroupedQueryAttention GroupQueryAttention",
        unless=exceptions.attention,
        note="its dense layers, products and softmax, each with a range; the factor is folded into "
        "the queries",
    ),
    Row(
        Rule("own", attention.dot_attention),
        layers="Attention",
        unless=exceptions.dot_attention,
        note="products and softmax, each with a range",
    ),
    Row(Rule("own"), layers="Dot", unless=exceptions.dot, note="a range of its own"),
    Row(
        Rule("own"),
        layers="Embedding",
        note="a range of its own; the table takes its levels",
    ),
    Row(
        Rule("float", weights=True, reason="TFLite runs the loop of a recurrent layer in float"),
        layers="SimpleRNN LSTM GRU Bidirectional ConvLSTM1D ConvLSTM2D",
        note="weights with int8 levels, computed in float",
    ),
    Row(
        Rule("float", reason="TFLite has no int8 kernel for 3-D convolutions"),
        layers="Conv3D Conv3DTranspose ConvLSTM3D",
    ),
    Row(
        Rule("float", reason="no file of builtin operators: TFLite has none for 3-D pooling"),
        layers="MaxPooling3D AveragePooling3D AdaptiveAveragePooling3D AdaptiveMaxPooling3D",
        note="no file of builtin operators: TFLite has none for 3-D pooling",
    ),
    Row(
        Rule("float", reason="no file of builtin operators: TFLite has none for erf"),
        functions="erf",
        note="no file of builtin operators: TFLite has none for erf",
    ),
    Row(
        Rule("float", reason="its branches would be rounded one by one", leaks=True),
        functions="soft_shrink hard_shrink threshold sparse_plus sparse_sigmoid glu",
    ),
    Row(
        Rule("float", reason=_FLOAT_SOFT),
        layers="ELU",
        functions="elu selu celu softplus log_sigmoid squareplus sparsemax",
    ),
    Row(
        Rule("float", reason="TFLite has no int8 kernel for all of its operators", leaks=True),
        layers="UnitNormalization AdditiveAttention Masking",
        functions="softsign sqrt rsqrt log sin cos round floor ceil sign cumsum normalize "
        "reciprocal norm var std",
    ),
    Row(
        Rule(
            "float",
            reason="the converter fails on int8 sums of blocks that are one pixel wide",
            leaks=True,
        ),
        layers="CustomScaleLayer",
        note="float: a scaled sum of InceptionResNetV2, where the converter fails on blocks that "
        "are one pixel wide",
    ),
)
