"""What is piped in, as text."""

from __future__ import annotations

from lorakit.errors import DataError


def as_text(content: bytes, what: str) -> str:
    """Return what was piped in as text, without a byte-order mark before it.

    Args:
        content: What was read from standard input.
        what: What messages call it: ``the piped prompt``.

    Raises:
        DataError: It is not UTF-8; names the byte.
    """
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise DataError(f"{what} is not UTF-8 (byte {error.start + 1}); convert it with iconv.") from None
