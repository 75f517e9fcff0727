"""Names: of conflict copies, of entries that are moved out of the way for a moment, and what a local disk refuses.

Used by `reconcile` and its helpers, and by `scan` to leave the agent's own names alone. Lengths count in bytes of
UTF-8, as on the server and on Linux. Pure.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

from helenite.core.paths import NAME_BYTES_MAX

STATE_DIRECTORY = ".helenite-sync"
"""In the root of the synced folder: what is staged, and the local trash. Never synced."""
IGNORE_FILE = ".heleniteignore"
ASIDE_PREFIX = ".helenite-aside-"
"""How an entry is called while it waits for its new name to become free; followed by the agent's id."""

_EXTENSION_BYTES_MAX = 32
"""A longer ending is no extension, and is cut with the rest of a name that is too long."""
_COPY = re.compile(r" \((?:conflicted copy|case conflict) \d{4}-\d\d-\d\d [^()/]*\)(?= |\.|$)")
_COMPOUND = (".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
_WINDOWS_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[1-9¹²³]|lpt[1-9¹²³])(?:\..*)?", re.IGNORECASE)
_WINDOWS_CHARACTERS = re.compile(r'[\x00-\x1f<>:"|?*\\]')


@dataclass(frozen=True, slots=True)
class NameRules:
    """What the local file system makes of names. The defaults are Linux': a name is a string of bytes."""

    ignores_case: bool = False
    ignores_normalization: bool = False
    windows: bool = False

    @property
    def exact(self) -> bool:
        """Whether two different strings are always two names."""
        return not (self.ignores_case or self.ignores_normalization)

    def key(self, name: str) -> str:
        """Equal for the names that cannot stand side by side in one local directory."""
        if self.ignores_normalization:
            name = unicodedata.normalize("NFC", name)
        return name.casefold() if self.ignores_case else name

    def same(self, name: str, other: str) -> bool:
        """Whether both spell one name: a file system that normalizes must not look like a person who renames."""
        if name == other:
            return True
        return self.ignores_normalization and unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", other)

    def refusal(self, name: str) -> str | None:
        """Why the local disk cannot hold this name, or None."""
        if name in {STATE_DIRECTORY, ".", ".."}:
            return "the name is taken by the agent itself"
        if self.windows and _WINDOWS_CHARACTERS.search(name):
            return "Windows does not allow one of its characters"
        if self.windows and (name[-1:] in {".", " "} or _WINDOWS_RESERVED.fullmatch(name)):
            return "Windows does not allow this name"
        return None


def is_conflict_copy(name: str) -> bool:
    """Whether the name was given by `conflict_name`."""
    return _COPY.search(name) is not None


def conflict_name(name: str, stamp: str, taken: Callable[[str], bool], word: str = "conflicted copy") -> str:
    """A free name for the copy of `name`: `letter (conflicted copy 2026-11-24 anna).txt`, then `… anna 2).txt`.

    `stamp` is date and host. The copy of a copy is another copy of the same original. The result has at most
    NAME_BYTES_MAX bytes; what is too long loses the end of its stem.
    """
    stem, extension = split_extension(_COPY.sub("", name))
    count = 1
    while True:
        tag = f" ({word} {stamp})" if count == 1 else f" ({word} {stamp} {count})"
        room = NAME_BYTES_MAX - len((tag + extension).encode())
        found = cut_to_bytes(stem, room) + tag + extension
        if not taken(found):
            return found
        count += 1


def split_extension(name: str) -> tuple[str, str]:
    """Stem and extension (with its dot); `.hidden` and `name.` have none, `a.tar.gz` has two dots in it."""
    for compound in _COMPOUND:
        if name.lower().endswith(compound) and len(name) > len(compound):
            return name[: -len(compound)], name[-len(compound) :]
    at = name.rfind(".")
    extension = name[at:]
    if at <= 0 or name[:at].strip(".") == "" or len(extension) < 2 or len(extension.encode()) > _EXTENSION_BYTES_MAX:
        return name, ""
    return name[:at], extension


def cut_to_bytes(text: str, bytes_max: int) -> str:
    """As many characters from the start as fit into so many bytes of UTF-8."""
    return text.encode()[: max(bytes_max, 0)].decode(errors="ignore")


def aside_name(agent: str, number: int) -> str:
    """A name for an entry that waits for its own to become free; `agent` tells whose it is, and is plain ASCII."""
    return f"{ASIDE_PREFIX}{agent}-{number:x}"


def is_aside(name: str) -> bool:
    """Whether some agent has moved this entry out of the way and will move it on."""
    return name.startswith(ASIDE_PREFIX)


def is_aside_of(name: str, agent: str) -> bool:
    """Whether this very agent did."""
    return name.rpartition("-")[0] == ASIDE_PREFIX + agent


def host_label(host: str) -> str:
    """The part of a host's name that may stand in the name of a conflict copy."""
    plain = re.sub(r"[^\w.-]+", "-", host.split(".", maxsplit=1)[0]).strip("-.")
    return cut_to_bytes(plain, 32) or "this-device"
