"""What both directions of a bundle share: its bounds, its target, the executable bit.

Used by `intake` and `outlet`. Pure but for looking up the target.
"""

from __future__ import annotations

from helenite.core.errors import WrongKindError
from helenite.core.model import MIB
from helenite.core.paths import format_path
from webdav.conditions import evaluate_if_header, found
from webdav.request import Request

BYTES_MAX = 1024 * MIB
"""Content of a bundle: some seconds of work, so that a connection that breaks costs no more."""
SMALL_BYTES = MIB
"""Files up to this size are held whole in memory; larger ones stream."""
GROUP_BYTES_MAX = 4 * MIB
"""Content of small files that are stored together; with the group before it, what a bundle holds in memory."""
HELD_MAX = 64
HELD_BYTES_MAX = 16 * MIB
"""Small files of one bundle that are read ahead, and what they hold; directories that are made side by side."""
EXECUTABLE = "{http://apache.org/dav/props/}executable"
EXECUTABLE_ELEMENT = b'<executable xmlns="http://apache.org/dav/props/">T</executable>'
"""The executable bit, as the dead property that mod_dav, davfs2 and cadaver know it by."""


def check_target(request: Request) -> None:
    """The target must be a collection, for which the `If` header holds."""
    resource = request.find(with_locks=bool(request.if_lists))
    evaluate_if_header(request, resource)
    if not found(resource, request.path).is_collection:
        raise WrongKindError(f"{format_path(request.path)} is no collection")
