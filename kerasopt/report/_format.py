"""How a number is written on the page."""

import math

NARROW = "\u202f"  # narrow no-break space: keeps a number and its unit on one line
MISSING = "–"


def percent(fraction: float | None) -> str:
    r"""Returns a fraction as a percentage with one digit; only a true 1 is 100, a true 0 is 0.

    >>> percent(0.9354)
    '93.5\u202f%'
    """
    if fraction is None or not math.isfinite(fraction):
        return MISSING
    if 0.9995 <= fraction < 1.0:
        return f"> 99.9{NARROW}%"
    if 0.0 < fraction < 0.0005:
        return f"< 0.1{NARROW}%"
    if fraction in (0.0, 1.0):
        return f"{fraction * 100:.0f}{NARROW}%"
    return f"{fraction * 100:.1f}{NARROW}%"


def points(difference: float) -> str:
    """Returns a difference of two fractions in percentage points, with its sign.

    >>> points(-0.003)
    '−0.3 points'
    """
    rounded = round(difference * 100, 1)
    if rounded == 0:
        return "±0.0 points"
    return f"{'+' if rounded > 0 else '−'}{abs(rounded):.1f} points"


def size(count: int | None) -> str:
    r"""Returns a number of bytes in B, KiB or MiB.

    >>> size(4_300_000)
    '4.10\u202fMiB'
    """
    if count is None:
        return MISSING
    if count < 1024:
        return f"{count}{NARROW}B"
    if count < 1024**2:
        return f"{count / 1024:.1f}{NARROW}KiB"
    return f"{count / 1024**2:.2f}{NARROW}MiB"


def milliseconds(value: float | None) -> str:
    """Returns a time with three digits that count.

    >>> milliseconds(12.345)
    '12.3'
    """
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def times(ratio: float) -> str:
    """Returns how many times, with two digits that count.

    >>> times(3.951)
    '4.0×'
    """
    return f"{ratio:.1f}×" if ratio < 10 else f"{ratio:.0f}×"


def change(value: float, base: float) -> str:
    r"""Returns how much larger or smaller a value is than another one.

    >>> change(75, 100)
    '−25\u202f%'
    """
    if not base:
        return MISSING
    rounded = round(100 * (value / base - 1))
    return f"{'+' if rounded > 0 else '−' if rounded < 0 else '±'}{abs(rounded)}{NARROW}%"


def duration(seconds: float | None) -> str:
    r"""Returns a time in the two units that count.

    >>> duration(71.4), duration(3725)
    ('1\u202fmin 11\u202fs', '1\u202fh 2\u202fmin')
    """
    if seconds is None:
        return MISSING
    whole = round(seconds)
    if whole < 60:
        return f"{whole}{NARROW}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}{NARROW}min {rest}{NARROW}s"
    return f"{minutes // 60}{NARROW}h {minutes % 60}{NARROW}min"


def integer(value: int | None) -> str:
    r"""Returns a whole number with its thousands apart.

    >>> integer(1234567)
    '1\u202f234\u202f567'
    """
    return MISSING if value is None else f"{value:,}".replace(",", NARROW)


def short(value: float) -> str:
    """Returns a value of a curve with four digits that count.

    >>> short(0.123456)
    '0.1235'
    """
    return f"{value:.4g}"


def layer_name(name: str) -> str:
    """Returns the end of a tensor's name; TFLite joins those of what was fused with `;`.

    >>> layer_name("net_1/block1_1/Relu;net_1/block1_bn_1/batchnorm/add_1")
    'block1_1/Relu'
    """
    return "/".join(name.split(";", maxsplit=1)[0].split("/")[-2:])
