"""How a command finds its cluster: options, environment, the default directory.

Used by every command but `up`. It says what to do when there is none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from helenite.cli.cluster_dir import DEFAULT_DIR, ClusterDir
from helenite.client.filesystem import FileSystem
from helenite.config import ClientSettings, CliSettings, environment, parse_address
from helenite.core.errors import ConfigurationError

DirOption = Annotated[
    Path | None, typer.Option("--dir", help="Data directory of a cluster that `helenite up` runs.", show_default=False)
]
MasterOption = Annotated[
    str | None, typer.Option("--master", metavar="HOST:PORT", help="Master to talk to.", show_default=False)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def find_masters(directory: Path | None, master: str | None, settings: CliSettings) -> tuple[str, ...]:
    """Options come before the environment, the environment before the default directory."""
    if master:
        try:
            return (parse_address(master),)
        except ValueError as error:
            raise ConfigurationError(f"--master: {error}") from None
    if directory is not None:
        return _masters_in(directory)
    if settings.masters:
        return settings.masters
    if settings.directory:
        return _masters_in(Path(settings.directory))
    if DEFAULT_DIR.is_dir():
        return _masters_in(DEFAULT_DIR)
    raise ConfigurationError(
        "which cluster? Give --dir DIR or --master HOST:PORT, or start one here with `helenite up`"
    )


def _masters_in(directory: Path) -> tuple[str, ...]:
    info = ClusterDir(directory).load_info()
    if info is None:
        raise ConfigurationError(f"no cluster is running in {directory}; start it with `helenite up --dir {directory}`")
    return info.masters


def open_cluster(directory: Path | None, master: str | None) -> FileSystem:
    """A FileSystem of the cluster that the options and the environment name."""
    settings = CliSettings.from_env(environment())
    masters = find_masters(directory, master, settings)
    return FileSystem(ClientSettings(masters=masters, deadline_s=settings.deadline_s))
