"""What a person chose: which folders are kept equal with what, and how fast. And where the agent keeps its files.

Used by the daemon and by the commands. Everything lies under one directory, the agent's *home*, so that several agents
can live on one machine. The settings are one JSON file, replaced as a whole. Any thread.
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import filelock
import platformdirs

from helenite.core.errors import ConfigurationError

VERSION = 1
EDIT_S = 10.0
"""So long a command waits for another one to have written the settings."""


@dataclass(frozen=True, slots=True)
class PairSettings:
    """A local folder and the address of its counterpart."""

    id: str
    url: str
    folder: str
    user: str = ""
    is_paused: bool = False
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """All of one home.

    Limits are bytes a second; None: as fast as it goes. The local trash of each pair keeps things for so many days, and
    so many bytes of them; None: a part of the disk.
    """

    pairs: tuple[PairSettings, ...] = ()
    up_bytes_per_s: int | None = None
    down_bytes_per_s: int | None = None
    trash_days: int = 30
    trash_bytes: int | None = None

    def choose(self, which: str) -> PairSettings:
        """The pair with this id or folder; with an empty text, the only one there is."""
        if not which and len(self.pairs) == 1:
            return self.pairs[0]
        folder = os.path.realpath(which)
        for pair in self.pairs:
            if which == pair.id or (which and _contains(pair.folder, folder)):
                return pair
        if not self.pairs:
            raise ConfigurationError("no folder is synced yet; begin with: helenite sync add URL FOLDER")
        raise ConfigurationError("say which folder: " + ", ".join(pair.folder for pair in self.pairs))

    def replace(self, pair: PairSettings) -> AgentSettings:
        """With a pair in place of the one of its id."""
        return dataclasses.replace(self, pairs=tuple(pair if old.id == pair.id else old for old in self.pairs))


@dataclass(frozen=True, slots=True)
class Home:
    """The directory of one agent."""

    path: FilePath

    @property
    def settings_file(self) -> FilePath:
        return self.path / "settings.json"

    @property
    def running_lock(self) -> filelock.FileLock:
        """Held by the daemon for as long as it runs."""
        return filelock.FileLock(self.path / "agent.lock", timeout=0)

    @property
    def option(self) -> str:
        """What a command has to be given to find it: nothing, if it looks there anyway."""
        return "" if self.path == default_home() else f" --home {shlex.quote(str(self.path))}"

    def pair_dir(self, pair: str) -> FilePath:
        return self.path / f"pair-{pair}"

    def load(self) -> AgentSettings:
        """The settings; none, when nobody has set anything."""
        try:
            values = json.loads(self.settings_file.read_text(encoding="utf-8"))
            return _parse(values)
        except FileNotFoundError:
            return AgentSettings()
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigurationError(f"{self.settings_file} cannot be understood: {error}") from error

    @contextmanager
    def edit(self) -> Iterator[_Draft]:
        """Change the settings; no other command does so meanwhile."""
        self.make()
        try:
            with filelock.FileLock(self.path / "settings.lock", timeout=EDIT_S):
                draft = _Draft(self.load())
                yield draft
                write_private(
                    self.settings_file, json.dumps({"version": VERSION, **dataclasses.asdict(draft.settings)})
                )
        except filelock.Timeout as error:
            raise ConfigurationError(f"another command is changing {self.settings_file}") from error

    def pause(self, which: str, *, is_paused: bool) -> None:
        """Pause or resume a pair; with an empty text, all of them."""
        with self.edit() as draft:
            pairs = (draft.settings.choose(which),) if which else draft.settings.pairs
            if not pairs:
                draft.settings.choose(which)
            for pair in pairs:
                draft.settings = draft.settings.replace(dataclasses.replace(pair, is_paused=is_paused))

    def make(self) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)


@dataclass(slots=True)
class _Draft:
    settings: AgentSettings


def default_home() -> FilePath:
    """Where the agent's files belong on this system."""
    return FilePath(platformdirs.user_data_dir("helenite-sync", appauthor=False))


def new_pair_id() -> str:
    """An id that no other agent uses; it is in the marker of the folder and in the names of what is moved aside."""
    return secrets.token_hex(8)


def check_folder_is_free(settings: AgentSettings, folder: str) -> None:
    """ConfigurationError when a folder lies in one that is synced already, or around one."""
    for pair in settings.pairs:
        if _contains(pair.folder, folder) or _contains(folder, pair.folder):
            raise ConfigurationError(f"{folder} overlaps with {pair.folder}, which is synced already")


def write_private(file: FilePath, text: str) -> None:
    """Replace a file that only its owner may read, as a whole."""
    fresh = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(file)


def _contains(outer: str, inner: str) -> bool:
    return FilePath(inner).is_relative_to(outer)


def _parse(values: dict[str, Any]) -> AgentSettings:
    if values["version"] != VERSION:
        raise ValueError(f"version {values['version']}, this program reads {VERSION}")
    pairs = tuple(PairSettings(**pair | {"excluded": tuple(pair["excluded"])}) for pair in values["pairs"])
    others = {
        name: values[name] for name in (field.name for field in dataclasses.fields(AgentSettings)) if name in values
    }
    return AgentSettings(**others | {"pairs": pairs})
