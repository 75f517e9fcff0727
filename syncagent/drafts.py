"""What the agent remembers of uploads that it has begun in parts, so that the next process goes on with them.

Used by `partwise`. A draft is a file on the server, under a name that every agent leaves alone, which has the beginning
of the content; it becomes the real one when it is complete. One small file here for each, written before the draft is
made, so that none is forgotten there. One thread at a time for one upload.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path as FilePath

from helenite.core.errors import InvalidPathError
from helenite.core.paths import Path, format_path, parse_path
from syncagent.troubles import translated

log = logging.getLogger(__name__)

DRAFT_MS_MAX = 24 * 3600 * 1000
"""A draft that has not grown for so long is given up."""


@dataclass(frozen=True, slots=True)
class Draft:
    """An upload that has begun: to where, in which place until then, of what content and state of the local file."""

    target: Path
    path: Path
    digest: bytes
    state: str


class Drafts:
    """The drafts of one pair of folders."""

    def __init__(self, directory: FilePath | None) -> None:
        """Without a directory nothing is remembered, and nothing is uploaded in parts."""
        self._directory = directory

    @property
    def are_kept(self) -> bool:
        """Whether uploads may go in parts."""
        return self._directory is not None

    def load(self, target: Path) -> Draft | None:
        """The draft of what is to be at `target`."""
        return None if self._directory is None else _read(_file(self._directory, target))

    def save(self, draft: Draft) -> None:
        """Remember a draft; to be called again when it has grown."""
        assert self._directory is not None
        file = _file(self._directory, draft.target)
        with translated(file):
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            places = {"target": format_path(draft.target), "path": format_path(draft.path)}
            values = places | {"digest": draft.digest.hex(), "state": draft.state}
            fresh = file.with_suffix(".new")
            fresh.write_text(json.dumps(values), encoding="utf-8")
            fresh.replace(file)

    def forget(self, draft: Draft) -> None:
        """It is not on the server any more."""
        assert self._directory is not None
        _file(self._directory, draft.target).unlink(missing_ok=True)

    def abandoned(self, now_ms: int) -> Iterator[Draft]:
        """Those that have not grown for long."""
        if self._directory is None or not self._directory.exists():
            return
        for file in list(self._directory.iterdir()):
            if now_ms - file.stat().st_mtime_ns // 1_000_000 < DRAFT_MS_MAX:
                continue
            draft = _read(file)
            if draft is None:
                file.unlink(missing_ok=True)
            else:
                yield draft


def _file(directory: FilePath, target: Path) -> FilePath:
    return directory / hashlib.sha256(format_path(target).encode()).hexdigest()[:32]


def _read(file: FilePath) -> Draft | None:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        target, path = parse_path(values["target"]), parse_path(values["path"])
        return Draft(target, path, bytes.fromhex(values["digest"]), str(values["state"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, InvalidPathError) as error:
        log.info("what was remembered of an upload cannot be used: %s", error)
        return None
