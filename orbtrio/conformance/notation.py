"""Messages as a person reads them: CBOR diagnostic notation, with secrets masked and long strings cut."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import cbor2

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = ["MASK", "decode", "diagnostic", "encode"]

MASK: Final = "(masked)"

# Fields whose values are secrets, whoever sent them.
_SECRET_FIELDS: Final = frozenset({"worker_secret", "token"})

_LONGEST_STRING: Final = 200
_LONGEST_LIST: Final = 40
_DEEPEST: Final = 70

_MARK: Final = b"\x1b\xff" + os.urandom(7)


def encode(value: Any) -> bytes:
    """CBOR with definite lengths and shortest heads."""
    return cbor2.dumps(value)


def decode(data: bytes) -> Any:
    """Any one well-formed CBOR item, leniently: what the target sends is judged by the cases, not here.

    Raises:
        ValueError: not well-formed, or more than one item.
    """
    try:
        # A list with a mark behind the item: otherwise bytes behind it would go unnoticed.
        item, mark = cbor2.loads(b"\x82" + data + _MARK, max_depth=200, semantic_decoders=_TAGS)
    except (cbor2.CBORError, EOFError, TypeError, ValueError) as error:
        raise ValueError(f"no CBOR item: {error}") from error
    if mark != int.from_bytes(_MARK[1:], "big"):
        raise ValueError("bytes behind the CBOR item")
    return item


class _AllTags(Mapping[int, Any]):
    # What a tag means is not the suite's business: it must arrive as it was sent.

    def __getitem__(self, tag: int) -> Any:
        return lambda value, immutable: cbor2.CBORTag(tag, value)

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 0


_TAGS: Final = _AllTags()


def diagnostic(value: Any, *, secrets: Collection[str] = (), longest: int = _LONGEST_STRING) -> str:
    """CBOR diagnostic notation (RFC 8949, section 8) of a value, for a log.

    Args:
        value: As decoded by cbor2.
        secrets: Texts that are masked wherever they occur.
        longest: Strings are cut to so many characters or bytes, lists to `_LONGEST_LIST` items.
    """
    text = _notation(value, longest, 0)
    for secret in secrets:
        if secret:
            text = text.replace(json.dumps(secret, ensure_ascii=False)[1:-1], MASK)
    return text


def _notation(value: Any, longest: int, depth: int) -> str:
    if depth > _DEEPEST:
        return "..."
    match value:
        case True:
            return "true"
        case False:
            return "false"
        case None:
            return "null"
        case cbor2.undefined:
            return "undefined"
        case float():
            if math.isnan(value):
                return "NaN"
            return repr(value) if math.isfinite(value) else ("Infinity" if value > 0 else "-Infinity")
        case int():
            return (
                str(value)
                if abs(value) < 1 << 64
                else f"{'-' if value < 0 else ''}2^{abs(value).bit_length()}..."
            )
        case str():
            cut = value[:longest]
            note = f"({len(value)} characters)" if len(value) > longest else ""
            return json.dumps(cut, ensure_ascii=not cut.isprintable()) + note
        case bytes() | bytearray():
            # A fifth of a text's length says as much.
            cut_bytes = bytes(value[: longest // 5])
            note = f"({len(value)} bytes)" if len(value) > longest // 5 else ""
            return f"h'{cut_bytes.hex()}'{note}"
        case list() | tuple():
            items = [_notation(item, longest, depth + 1) for item in value[:_LONGEST_LIST]]
            if len(value) > _LONGEST_LIST:
                items.append(f"... ({len(value)} items)")
            return f"[{', '.join(items)}]"
        case dict():
            pairs = []
            for number, (key, item) in enumerate(value.items()):
                if number == _LONGEST_LIST:
                    pairs.append(f"... ({len(value)} pairs)")
                    break
                shown = json.dumps(MASK) if key in _SECRET_FIELDS and isinstance(item, str) else None
                pairs.append(
                    f"{_notation(key, longest, depth + 1)}: {shown or _notation(item, longest, depth + 1)}"
                )
            return f"{{{', '.join(pairs)}}}"
        case cbor2.CBORTag():
            return f"{value.tag}({_notation(value.value, longest, depth + 1)})"
        case cbor2.CBORSimpleValue():
            return f"simple({value.value})"
        case _:
            return f"{type(value).__name__}(...)"
