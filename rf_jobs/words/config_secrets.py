"""Hiding secrets in what is shown: URLs are printed, logged and exported only through ``mask_url``."""

from __future__ import annotations

import re

MASK = "***"

_SECRET_PARAMETER = re.compile(r"(?i)(?<=[?&])([^=&#]*(?:pass|pwd|secret|token|api_?key)[^=&#]*)=[^&#]*")


def mask_url(url: str) -> str:
    """``url`` with the password, and any query parameter that sounds like one, replaced by ``***``.

    Errs on the side of hiding: a password that holds an unescaped ``@``, ``/`` or ``?`` is masked whole, at the price
    of an odd-looking URL where an ``@`` stands in a later part.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    userinfo, at, host = rest.rpartition("@")
    user, colon, _ = userinfo.partition(":")
    if at and colon and not rest.startswith("/"):
        rest = f"{user}:{MASK}@{host}"
    return _SECRET_PARAMETER.sub(rf"\1={MASK}", scheme + separator + rest)
