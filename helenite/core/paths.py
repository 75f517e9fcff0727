"""What a path is: a tuple of names below the root, and which names can exist.

Used by every part that takes a path from outside. It leaves percent-encoding to the gateway and the rules
of particular operating systems to the sync agent. Names are kept as they are: no case folding and no
Unicode normalisation, so that NFC and NFD spellings are two names, as on ext4. Pure.
"""

from __future__ import annotations

from helenite.core.errors import InvalidPathError

NAME_BYTES_MAX = 255
"""Longest name in UTF-8, the limit of every common file system, so that trees can be copied back."""
DEPTH_MAX = 256
"""Deepest path; bounds the walk inside one Lua script."""

Path = tuple[str, ...]
ROOT: Path = ()


def validate_name(name: str) -> str:
    """Return `name` or raise InvalidPathError with the reason."""
    if not name or name in {".", ".."}:
        raise InvalidPathError(f"{name!r} cannot be a name")
    if "/" in name or "\0" in name:
        raise InvalidPathError(f"a name cannot contain '/' or NUL: {name[:80]!r}")
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidPathError(f"a name must be valid UTF-8: {name[:80]!r}") from None
    if length > NAME_BYTES_MAX:
        raise InvalidPathError(f"a name has at most {NAME_BYTES_MAX} bytes, this one {length}: {name[:40]!r}…")
    return name


def parse_path(text: str) -> Path:
    """Parse an absolute path such as `/a/b`; one trailing slash is allowed, empty names are not."""
    if not text.startswith("/"):
        raise InvalidPathError(f"a path starts with '/': {text[:80]!r}")
    if text == "/":
        return ROOT
    body = text[1:].removesuffix("/")
    names = tuple(validate_name(name) for name in body.split("/"))
    if len(names) > DEPTH_MAX:
        raise InvalidPathError(f"a path has at most {DEPTH_MAX} levels, this one {len(names)}")
    return names


def format_path(path: Path) -> str:
    """The text of a path: `/` for the root, no trailing slash otherwise."""
    return "/" + "/".join(path)


def is_within(path: Path, ancestor: Path) -> bool:
    """Whether `path` is `ancestor` or lies beneath it."""
    return path[: len(ancestor)] == ancestor
