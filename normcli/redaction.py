"""Secrets in addresses, taken out of everything that is shown or written."""

from __future__ import annotations

import re

_MASK = "***"
# An address taken for a path has one slash left. A scheme of one letter would be a drive.
_SCHEME = r"[A-Za-z0-9+.-]{2}:/{1,2}"
# user:password@ before a host, and the query of an address, where signatures and tokens are.
_CREDENTIALS = re.compile(rf"({_SCHEME})[^/@\s'\"]{{1,4096}}@")
_QUERY = re.compile(rf"({_SCHEME}[^\s?#'\"]{{0,4096}}[?#])[^\s'\"]{{1,65536}}")


def redacted(text: str) -> str:
    """Return `text` with credentials and queries of addresses masked.

    Examples
    --------
    >>> redacted("s3://key:secret@bucket/x.zarr and https://h/x?X-Amz-Signature=abc")
    's3://***@bucket/x.zarr and https://h/x?***'
    """
    if ":/" not in text:
        return text
    return _QUERY.sub(rf"\1{_MASK}", _CREDENTIALS.sub(rf"\1{_MASK}@", text))
