"""A disk that fails, for real processes: `sick_disk.c`, preloaded, refuses file operations as a test says.

Every process of a cluster may be started with it: which of them is hit follows from the paths. What is in the kernel's
cache fails like everything else.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
CONTROL_BYTES = 4096
READS, WRITES, SYNCS, OPENS = "rf", "wa", "s", "o"
EVERYTHING = READS + WRITES + SYNCS + OPENS + "n"
SHORT = 0
"""In place of an errno: reads give half of what was asked for, which is no error."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Calls on files whose path contains `path` fail with `number`."""

    path: str
    calls: str
    number: int = errno.EIO


def build(directory: Path) -> Path:
    """Compile it; the library's path."""
    library = directory / "sick_disk.so"
    subprocess.run(
        ["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"], check=True
    )
    return library


class SickDisk:
    """What fails now, in a file that all preloaded processes have mapped."""

    def __init__(self, file: Path, library: Path) -> None:
        self._file = file
        self._library = library
        file.write_bytes(bytes(CONTROL_BYTES))

    @property
    def environment(self) -> dict[str, str]:
        """What the processes have to be started with."""
        return {"LD_PRELOAD": str(self._library), "SICK_DISK": str(self._file)}

    @contextmanager
    def failing(self, *failures: Failure) -> Iterator[None]:
        """These fail until the block ends."""
        self.fail(*failures)
        try:
            yield
        finally:
            self.recover()

    def fail(self, *failures: Failure) -> None:
        """These fail from now on, and nothing else."""
        lines = "".join(f"{each.calls} {each.number} {each.path}\n" for each in failures).encode()
        assert len(lines) < CONTROL_BYTES - 1
        self.recover()
        self._write(1, lines.ljust(CONTROL_BYTES - 1, b"\0"))
        self._write(0, b"\1")

    def recover(self) -> None:
        """Everything works."""
        self._write(0, b"\0")

    def _write(self, offset: int, data: bytes) -> None:
        descriptor = os.open(self._file, os.O_WRONLY)
        try:
            os.pwrite(descriptor, data, offset)
        finally:
            os.close(descriptor)
