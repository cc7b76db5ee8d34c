"""CBOR items that no well-meaning peer sends, by what is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from orbtrio.conformance.notation import encode

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

__all__ = ["HUGE", "ILL_FORMED", "STRANGE", "UNUSUAL", "random_item"]


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    width = next(width for width in (1, 2, 4, 8) if number < 1 << 8 * width)
    return bytes([major << 5 | 23 + width.bit_length()]) + number.to_bytes(width, "big")


def _tag(number: int, content: bytes) -> bytes:
    return _head(6, number) + content


def _text(text: str) -> bytes:
    return encode(text)


# Not one well-formed item, or structures that the protocol has no use for: refused wherever they stand.
ILL_FORMED: Final[Mapping[str, Callable[[], bytes]]] = {
    "B-23 nothing at all": lambda: b"",
    "B-23 a map that ends early": lambda: b"\xa1",
    "B-23 a text that ends early": lambda: b"\x63a",
    "B-23 a number that ends early": lambda: b"\x1a\x00",
    "B-23 reserved head 1c": lambda: b"\x1c",
    "B-23 reserved head 5c": lambda: b"\x5c",
    "B-23 reserved head fc": lambda: b"\xfc",
    "B-23 a break alone": lambda: b"\xff",
    "B-23 a break in a list of two": lambda: b"\x82\x01\xff",
    "B-24 a message and a byte": lambda: encode({"type": "i_am_server", "version": "1.0.1"}) + b"\x00",
    "B-25 lists 65 deep": lambda: b"\x81" * 70 + b"\x00",
    "B-25 lists 1,000 deep": lambda: b"\x81" * 1_000 + b"\x00",
    "B-25 lists 1,000,000 deep": lambda: b"\x81" * 1_000_000 + b"\x00",
    "B-25 maps 1,000 deep": lambda: b"\xa1\x61a" * 1_000 + b"\x00",
    "B-25 tags 10,000 deep": lambda: b"\xd8\x40" * 10_000 + b"\x00",
    "B-26 a list of 2^32-1": lambda: b"\x9a\xff\xff\xff\xff",
    "B-26 a list of 2^63": lambda: b"\x9b\x80" + bytes(7),
    "B-26 a map of 2^64-1": lambda: b"\xbb" + b"\xff" * 8,
    "B-26 bytes of 2^63": lambda: b"\x5b\x80" + bytes(7),
    "B-26 a text of 2^32": lambda: b"\x7b\x00\x00\x00\x01" + bytes(4),
    "B-27 2,000,000 empty lists": lambda: _head(4, 2_000_000) + b"\x80" * 2_000_000,
    "B-27 2,000,000 empty maps": lambda: _head(4, 2_000_000) + b"\xa0" * 2_000_000,
    "B-28 an indefinite text": lambda: b"\x7f\x61a\xff",
    "B-28 indefinite bytes in 50,000 chunks": lambda: b"\x5f" + b"\x41a" * 50_000 + b"\xff",
    "B-28 an indefinite list": lambda: b"\x9f\xff",
    "B-28 an indefinite map": lambda: b"\xbf\xff",
    "B-33 a value that contains itself": lambda: _tag(28, b"\x81" + _tag(29, b"\x00")),
    "B-33 a reference to nothing": lambda: _tag(29, b"\x07"),
    "B-33 doubling 64 times": lambda: _tag(28, b"\x82" * 30 + _tag(29, b"\x00") * 31),
    "B-34 a reference to a text": lambda: _tag(256, b"\x82" + _text("aaaa") + _tag(25, b"\x00")),
    "B-37 1,000 number keys that collide": lambda: (
        _head(5, 1_000) + b"".join(encode(number * (2**61 - 1)) + b"\x00" for number in range(1_000))
    ),
    "B-37 a list as key": lambda: b"\xa1\x81\x01\x02",
    "B-38 a key twice": lambda: b"\xa2\x61a\x01\x61a\x02",
    "B-39 a simple value in two bytes that fits one": lambda: b"\xf8\x10",
    "B-40 a text that is no UTF-8": lambda: b"\x61\xff",
    "B-40 a text with a surrogate": lambda: b"\x63\xed\xa0\x80",
    "B-40 a key that is no UTF-8": lambda: b"\xa1\x61\xff\x00",
}

# Well-formed, and nothing that a message may be. Inside a job's input it may travel unread, if nobody decodes
# it.
STRANGE: Final[Mapping[str, Callable[[], bytes]]] = {
    "B-29 a bignum of 64 KiB": lambda: _tag(2, _head(2, 65_000) + b"\xff" * 65_000),
    "B-29 a negative bignum": lambda: _tag(3, b"\x49\x01" + bytes(8)),
    "B-30 a decimal with exponent 10^9": lambda: _tag(4, b"\x82" + _head(0, 10**9) + b"\x01"),
    "B-30 a decimal of 64 KiB": lambda: _tag(4, b"\x82\x00" + _tag(2, _head(2, 65_000) + b"\xff" * 65_000)),
    "B-31 a bigfloat with exponent 10^6": lambda: _tag(5, b"\x82" + _head(0, 10**6) + b"\x01"),
    "B-32 a ratio with zero below": lambda: _tag(30, b"\x82\x01\x00"),
    "B-32 a regular expression": lambda: _tag(35, _text("(" * 200 + "a+" + ")+" * 200)),
    "B-32 a MIME message": lambda: _tag(
        36, _text("Content-Type: multipart/mixed; boundary=a\n\n" + "--a\n\n" * 5_000)
    ),
    "B-32 a date": lambda: _tag(0, _text("2013-03-21T20:04:00Z")),
    "B-32 a date that is none": lambda: _tag(0, _text("9999999-99-99T99:99:99Z")),
    "B-32 a time of 10^300": lambda: _tag(1, encode(1e300)),
    "B-32 a day": lambda: _tag(100, encode(-(2**62))),
    "B-32 a date without a time": lambda: _tag(1004, _text("1940-10-09")),
    "B-32 a UUID of three bytes": lambda: _tag(37, b"\x43abc"),
    "B-32 an IPv4 address": lambda: _tag(52, b"\x82\x18\xff\x41a"),
    "B-32 an IPv6 address": lambda: _tag(54, b"\x41a"),
    "B-32 a network address": lambda: _tag(260, b"\x41a"),
    "B-32 a network prefix": lambda: _tag(261, b"\xa1\x41a\x18\xff"),
    "B-32 tag 43000": lambda: _tag(43_000, b"\x80"),
    "B-35 tag 64 on a map": lambda: _tag(64, b"\xa0"),
    "B-35 a typed array of an odd length": lambda: _tag(77, b"\x43abc"),
    "B-35 a set": lambda: _tag(258, b"\x82\x01\x80"),
    "B-35 a map with tag 259": lambda: _tag(259, b"\xa1\x01\x02"),
    "B-35 an error of JavaScript": lambda: _tag(27, b"\x82" + _text("Error") + _text("m")),
    "B-35 a record of cbor-x": lambda: _tag(57_344, b"\x82\x81\x61a\x01"),
    "B-36 an unknown tag": lambda: _tag(4_711, b"\x00"),
    "B-36 tag 2^64-1": lambda: _tag(2**64 - 1, b"\x00"),
    "B-39 simple value 0": lambda: b"\xe0",
    "B-39 simple value 255": lambda: b"\xf8\xff",
}

# Unusual, but values like others: they have to travel.
UNUSUAL: Final[Mapping[str, Callable[[], bytes]]] = {
    "B-35 bytes as JavaScript has them": lambda: _tag(64, b"\x43abc"),
    "B-39 NaN": lambda: b"\xf9\x7e\x00",
    "B-39 infinity": lambda: b"\xf9\x7c\x00",
    "B-39 minus zero": lambda: b"\xf9\x80\x00",
    "B-39 2^53+1": lambda: encode(2**53 + 1),
    "B-39 undefined": lambda: b"\xf7",
    "B-40 a text with a zero, a newline and a right-to-left mark": lambda: _text("a\0b\nc\u202ed"),
}

# Too long for anybody but the whole message: what a lenient engine hands on, the suite has to decode.
HUGE: Final = frozenset(name for name in ILL_FORMED if "000,000" in name)


def random_item(generator: random.Random, depth: int) -> bytes:
    """An item made at random, well-formed or not."""
    major = generator.randrange(8)
    number = generator.choice([0, 1, 3, 23, 24, 25, 28, 29, 64, 255, 256, 65_535, 2**32, 2**63])
    if major in (2, 3):
        return _head(major, 3) + generator.randbytes(3)
    if major in (4, 5) and depth:
        count = generator.randrange(4)
        items = (random_item(generator, depth - 1) for _ in range(count * (major - 3)))
        return _head(major, count) + b"".join(items)
    if major == 6 and depth:
        return _head(6, number) + random_item(generator, depth - 1)
    return _head(0 if major in (4, 5, 6) else major, number)
