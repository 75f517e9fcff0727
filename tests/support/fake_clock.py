"""A wall clock that jumps, for one real process: libfaketime, preloaded, reads the offset from a file at each look.

The monotonic clock is left alone, as it is when a real machine's clock is set.
"""

from __future__ import annotations

from pathlib import Path

LIBRARY = "faketime/libfaketime.so.1"
HOUR_S = 3600


def find_library() -> Path | None:
    """Where the Debian package put it."""
    return next(iter(sorted(Path("/usr/lib").glob(f"*/{LIBRARY}"))), None)


class FakeClock:
    """The offset of one process's wall clock, in a file."""

    def __init__(self, file: Path, library: Path) -> None:
        self._file = file
        self._library = library
        self.jump(0)

    @property
    def environment(self) -> dict[str, str]:
        """What the process has to be started with."""
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, hours: float) -> None:
        """To so many hours off the true time, before it when negative."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{hours * HOUR_S:+.0f}\n")
        fresh.replace(self._file)
