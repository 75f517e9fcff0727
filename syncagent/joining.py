"""Joins a folder to one on a server: checks both, and says what the first sync would do, before anything is kept.

Used by `cli`. One thread.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path as FilePath

from helenite.core.clock import Clock
from helenite.core.errors import ConfigurationError, EntryNotFoundError, ParentNotFoundError
from helenite.core.paths import ROOT
from syncagent.daemon import name_rules
from syncagent.engine import Engine, Settings
from syncagent.fates import Customs
from syncagent.folder import LocalFolder
from syncagent.journal import open_journal
from syncagent.model import SIDES
from syncagent.names import STATE_DIRECTORY
from syncagent.plan import Pair
from syncagent.remote import WebDavRemote
from syncagent.selection import Selection
from syncagent.session import Account, Session, Throttles
from syncagent.throttle import Throttle
from syncagent.transfers import Lanes


@dataclass(frozen=True, slots=True)
class Preview:
    """What the first sync has to do: entries that only one side has, and those that both have under one name."""

    local_count: int
    remote_count: int
    common_count: int

    @property
    def sentence(self) -> str:
        return (
            f"Only here, and going to the server: {self.local_count}. Only there, and coming here: {self.remote_count}."
            f" Names on both sides: {self.common_count}; where their contents differ, both are kept."
        )


def check_folder(text: str) -> str:
    """The folder as an absolute path, made if it is missing; ConfigurationError when it cannot be one."""
    folder = FilePath(os.path.realpath(FilePath(text).expanduser()))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be a folder: {error.strerror}") from error
    marker = folder / STATE_DIRECTORY / "pair"
    if marker.exists():
        raise ConfigurationError(f"{folder} belongs to a sync already; remove {marker} if that is over")
    return str(folder)


@contextmanager
def connected(account: Account, clock: Clock) -> Iterator[WebDavRemote]:
    """The folder on the server, which is made if only it is missing."""
    remote = WebDavRemote(Session(account, clock, Throttles(Throttle(clock), Throttle(clock))))
    try:
        try:
            remote.identity()
        except EntryNotFoundError:
            _make_home(remote, account.url)
        yield remote
    finally:
        remote.close()


def _make_home(remote: WebDavRemote, url: str) -> None:
    try:
        remote.make_directory(ROOT)
    except ParentNotFoundError as error:
        raise ConfigurationError(f"on the server there is no directory to make {url} in") from error
    remote.identity()


def preview(remote: WebDavRemote, folder: str, scratch: FilePath, clock: Clock) -> Preview | None:
    """What would happen; None when one side is empty. Nothing stays behind on either side."""
    local = LocalFolder(FilePath(folder), clock)
    if not local.list(ROOT).entries or not remote.list(ROOT):
        return None
    own = FilePath(folder) / STATE_DIRECTORY
    is_new = not own.exists()  # else an earlier sync has left its trash there
    journal = open_journal(scratch / "journal", "damaged")
    try:
        settings = Settings(Customs(rules=name_rules()), Selection())
        engine = Engine(local, remote, journal, clock, settings, Lanes())
        pairs = [step for step in engine.preview().steps if isinstance(step, Pair)]
        only = Counter(node.only_side for node in journal.unsettled_nodes(-1))
        local_count, remote_count = (only[side] - len(pairs) for side in SIDES)
        return Preview(local_count, remote_count, len(pairs) + only[None])
    finally:
        journal.close()
        shutil.rmtree(scratch)
        if is_new:
            shutil.rmtree(own)
        else:
            (own / "pair").unlink()
