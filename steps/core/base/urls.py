"""URLs as people may see them, without a login, and which of them never leave this machine."""

from __future__ import annotations

import ipaddress
import re


def masked(text: str) -> str:
    """Return the same words with the login of every URL in them masked.

    A password in a URL may have @ : / in it that should have been percent-encoded: what is masked reaches to the last @
    of the word. Where a / comes before any :, the first / ends the host, and an @ behind it belongs to the path.
    """
    return re.sub(r"//[^ \t\r\n]+", _without_login, text)


def masked_url(url: str) -> str:
    """Return one URL with its login masked, whatever the login is made of (blanks, too).

    It needs no scheme: a proxy may be given as user:password@host:port.
    """
    return re.sub(r"(?s)^[^/@]*:(?!//).*@", "***@", re.sub(r"(?s)//.+", _without_login, url))


def _without_login(after_scheme: re.Match[str]) -> str:
    login, at, rest = after_scheme[0].removeprefix("//").rpartition("@")
    return f"//***@{rest}" if at and (":" in login or "/" not in login) else after_scheme[0]


def shown(url: str) -> str:
    """Return a URL for people: no credentials, no query (mirrors redirect to signed ones)."""
    return re.split(r"[?#]", masked_url(url), maxsplit=1)[0]


def apart(url: str) -> tuple[str, str]:
    """Return a URL without its login, and the login. What ends the login is the last @, for passwords have / and @."""
    scheme, slashes, rest = url.partition("//")
    login, _, host = rest.rpartition("@")
    return f"{scheme}{slashes}{host}", login


def loopback(host: str) -> bool:
    """Return whether a URL's host is this machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
