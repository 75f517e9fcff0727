"""What a person chose, and passwords: kept as a whole, for nobody else to read."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import filelock
import keyring
import keyring.backend
import keyring.backends.fail
import keyring.backends.null
import pytest
from keyring.errors import KeyringLocked, PasswordDeleteError

from helenite.core.errors import ConfigurationError
from syncagent import settings
from syncagent.credentials import FILE, forget_password, load_password, save_password
from syncagent.settings import AgentSettings, Home, PairSettings, check_folder_is_free

ONE = PairSettings("1", "http://h/a", "/f/one", "anna", excluded=("x/y",))
TWO = PairSettings("2", "http://h/b", "/f/two")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def keep(home: Home, *pairs: PairSettings) -> None:
    with home.edit() as draft:
        draft.settings = AgentSettings(pairs, up_bytes_per_s=5, trash_days=7)


def test_settings_come_back_as_they_were(home: Home) -> None:
    assert home.load() == AgentSettings()
    keep(home, ONE, TWO)
    assert home.load() == AgentSettings((ONE, TWO), up_bytes_per_s=5, trash_days=7)
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(home.settings_file.stat().st_mode) == 0o600
    assert sorted(path.name for path in home.path.iterdir()) == ["settings.json", "settings.lock"]


def test_settings_of_an_older_program_have_defaults(home: Home) -> None:
    keep(home, ONE)
    values = json.loads(home.settings_file.read_text())
    del values["trash_days"]
    home.settings_file.write_text(json.dumps(values))
    assert home.load().trash_days == AgentSettings().trash_days
    assert home.load().pairs == (ONE,)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 99}', '{"version": 1, "pairs": [{"x": 1}]}'])
def test_settings_that_make_no_sense_are_told(home: Home, text: str) -> None:
    home.make()
    home.settings_file.write_text(text)
    with pytest.raises(ConfigurationError, match=r"settings\.json"):
        home.load()


def test_an_edit_that_fails_changes_nothing(home: Home) -> None:
    keep(home, ONE)
    with pytest.raises(ZeroDivisionError), home.edit() as draft:  # noqa: PT012
        draft.settings = AgentSettings()
        raise ZeroDivisionError
    assert home.load().pairs == (ONE,)


def test_two_commands_do_not_edit_at_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.make()
    monkeypatch.setattr(settings, "EDIT_S", 0.01)
    with filelock.FileLock(home.path / "settings.lock"), pytest.raises(ConfigurationError, match="another command"):
        keep(home, ONE)


def test_choosing_a_pair(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "music"
    (folder / "deep").mkdir(parents=True)
    music = replace(TWO, folder=str(folder))
    both = AgentSettings((ONE, music))
    assert AgentSettings((ONE,)).choose("") == ONE
    assert both.choose("2") == music
    assert both.choose(str(folder / "deep")) == music
    for which, said in (("", "say which"), ("/nowhere", "say which")):
        with pytest.raises(ConfigurationError, match=said):
            both.choose(which)
    with pytest.raises(ConfigurationError, match="no folder is synced"):
        AgentSettings().choose("")


def test_pausing_one_or_all(home: Home) -> None:
    with pytest.raises(ConfigurationError, match="no folder is synced"):
        home.pause("", is_paused=True)
    keep(home, ONE, TWO)
    home.pause("2", is_paused=True)
    assert [pair.is_paused for pair in home.load().pairs] == [False, True]
    home.pause("", is_paused=True)
    assert [pair.is_paused for pair in home.load().pairs] == [True, True]
    home.pause("", is_paused=False)
    assert home.load().pairs == (ONE, TWO)


@pytest.mark.parametrize(
    ("folder", "is_free"), [("/f/one/in", False), ("/f", False), ("/f/one", False), ("/f/on", True)]
)
def test_folders_do_not_overlap(folder: str, is_free: bool) -> None:
    if is_free:
        check_folder_is_free(AgentSettings((ONE,)), folder)
    else:
        with pytest.raises(ConfigurationError, match="overlaps"):
            check_folder_is_free(AgentSettings((ONE,)), folder)


# Passwords


class MemoryKeyring(keyring.backend.KeyringBackend):
    priority = 1  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}
        self.is_locked = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.is_locked:
            raise KeyringLocked("locked")
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        if self.is_locked:
            raise KeyringLocked("locked")
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if self.kept.pop((service, username), None) is None:
            raise PasswordDeleteError("none")


@pytest.fixture
def ring() -> Iterator[MemoryKeyring]:
    before = keyring.get_keyring()
    ring = MemoryKeyring()
    keyring.set_keyring(ring)
    yield ring
    keyring.set_keyring(before)


@pytest.fixture
def no_ring() -> Iterator[None]:
    before = keyring.get_keyring()
    keyring.set_keyring(keyring.backends.fail.Keyring())
    yield
    keyring.set_keyring(before)


def test_passwords_go_to_the_keyring(home: Home, ring: MemoryKeyring, tmp_path: Path) -> None:
    other = Home(tmp_path / "other")
    assert save_password(home, "1", "secret") == "keyring"
    assert save_password(other, "1", "another") == "keyring"
    assert load_password(home, "1") == "secret"
    assert load_password(other, "1") == "another"
    assert not (home.path / FILE).exists()
    forget_password(home, "1")
    assert load_password(home, "1") == ""
    assert load_password(other, "1") == "another"
    forget_password(home, "1")


@pytest.mark.usefixtures("no_ring")
def test_without_a_keyring_a_file_that_only_its_owner_may_read(home: Home) -> None:
    assert load_password(home, "1") == ""
    assert save_password(home, "1", "sécret") == "file"
    assert save_password(home, "2", "two") == "file"
    assert stat.S_IMODE((home.path / FILE).stat().st_mode) == 0o600
    assert (load_password(home, "1"), load_password(home, "2")) == ("sécret", "two")
    forget_password(home, "1")
    assert (load_password(home, "1"), load_password(home, "2")) == ("", "two")
    assert "cret" not in (home.path / FILE).read_text()


@pytest.mark.usefixtures("no_ring")
def test_a_keyring_that_keeps_nothing(home: Home) -> None:
    """As after `keyring --disable`."""
    keyring.set_keyring(keyring.backends.null.Keyring())
    assert save_password(home, "1", "secret") == "file"
    assert load_password(home, "1") == "secret"


def test_a_keyring_that_refuses(home: Home, ring: MemoryKeyring) -> None:
    ring.is_locked = True
    assert save_password(home, "1", "secret") == "file"
    assert load_password(home, "1") == "secret"
    assert load_password(home, "2") == ""
