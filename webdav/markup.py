"""Text into XML: escaping, and the few shapes that several answers share.

Used by everything that writes XML or HTML. Names may hold characters that XML 1.0 cannot say; they become U+FFFD there,
while links keep them percent-encoded. Pure.
"""

from __future__ import annotations

import re
from html import escape

DECLARATION = '<?xml version="1.0" encoding="utf-8"?>\n'

_SPECIAL = re.compile("[&<>\"'\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")
_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")


def text(value: str) -> str:
    """Escape for XML or HTML, in content and in quoted attributes."""
    if _SPECIAL.search(value) is None:
        return value
    return escape(_ILLEGAL.sub("\ufffd", value))


def split_name(name: str) -> tuple[str, str]:
    """Namespace and local part of a name written as `{namespace}local`."""
    if not name.startswith("{"):
        return "", name
    namespace, _, local = name[1:].rpartition("}")
    return namespace, local


def empty_element(name: str) -> str:
    """An empty element; the prefix `D` is bound to `DAV:` around it."""
    namespace, local = split_name(name)
    if namespace == "DAV:":
        return f"<D:{local}/>"
    return f'<{local} xmlns="{text(namespace)}"/>'
