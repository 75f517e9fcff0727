"""The commands as a person types them: what they say, and what they refuse in one sentence."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from helenite.core.errors import ConfigurationError, HeleniteError, UnavailableError
from syncagent.cli import app, status_of
from syncagent.credentials import load_password
from syncagent.settings import Home, PairSettings
from tests.support.gateways import our_gateway
from tests.support.memory_filesystem import MemoryFileSystem

COMMANDS = (
    *("add", "run", "stop", "status", "pause", "resume", "history", "conflicts", "explain", "ignore", "exclude"),
    *("limit", "decide", "autostart", "remove"),
)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    found = Home(tmp_path / "home")
    folder = tmp_path / "folder"
    folder.mkdir()
    with found.edit() as draft:
        draft.settings = draft.settings.__class__((PairSettings("p1", "http://127.0.0.1:9/x", str(folder)),))
    return found


def run(home: Home, *arguments: str, text: str = "") -> Result:
    return CliRunner().invoke(app, [*arguments, "--home", str(home.path)], input=text)


def refusal(home: Home, *arguments: str) -> tuple[int, str]:
    done = run(home, *arguments)
    assert isinstance(done.exception, HeleniteError), (done.output, done.exception)
    return status_of(done.exception), str(done.exception)


def test_every_command_explains_itself() -> None:
    help_text = CliRunner().invoke(app, ["--help"]).output
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", help_text), command
        done = CliRunner().invoke(app, [command, "--help"])
        assert done.exit_code == 0
        assert "--home" in done.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("history",),
        ("conflicts",),
        ("explain", "a.txt"),
        ("decide", "allow"),
        ("stop",),
    ],
)
def test_without_an_agent_that_runs(home: Home, arguments: tuple[str, ...]) -> None:
    status, sentence = refusal(home, *arguments)
    assert status == 3
    assert sentence == f"the agent is not running; start it with: helenite sync run --home {home.path}"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("explain", "/etc/passwd"), "is not in"),
        (("exclude", "/"), "is not in"),
        (("exclude", "."), "use: helenite sync remove"),
        (("exclude", "a/../b"), "cannot be a name"),
        (("limit", "--up", "fast"), "no number of bytes"),
        (("limit", "--up", "5K"), "at least 10000"),
        (("decide", "perhaps"), "allow, undo, start-over"),
        (("autostart", "perhaps"), "on, off, status"),
        (("pause", "/nowhere"), "say which folder"),
        (("add", "ftp://x/y", "nested"), "no http"),
        (("add", "http://x:y:z/", "nested"), "no URL"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(
    home: Home, arguments: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    status, said = refusal(home, *arguments)
    assert status == 2 if "cannot be a name" not in said else status == 1
    assert sentence in said
    assert "\n" not in said


def test_what_needs_no_agent_works_without(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    assert run(home, "pause").exit_code == 0
    assert home.load().pairs[0].is_paused
    assert run(home, "resume", str(folder / "deeper")).exit_code == 0
    assert not home.load().pairs[0].is_paused
    said = run(home, "limit", "--up", "2M", "--down", "0", "--trash-days", "7", "--trash-size", "5G").output
    assert said.splitlines() == ["up: 2000000 bytes/s", "down: no limit", "trash: 7 days, 5000000000 bytes"]
    assert run(home, "limit", "--trash-days", "0").exit_code == 2
    assert run(home, "ignore", "*.tmp", "build/").exit_code == 0
    assert run(home, "ignore", "*.tmp").exit_code == 0
    assert (folder / ".heleniteignore").read_text() == "*.tmp\nbuild/\n"
    assert run(home, "exclude", "photos/2020").exit_code == 0
    assert run(home, "exclude", str(folder / "music")).exit_code == 0
    assert home.load().pairs[0].excluded == ("photos/2020", "music")
    assert run(home, "exclude", "music", "--undo").exit_code == 0
    assert home.load().pairs[0].excluded == ("photos/2020",)
    assert run(home, "remove").exit_code == 0
    assert home.load().pairs == ()
    assert folder.exists()


def test_adding_what_cannot_be_reached(home: Home, tmp_path: Path) -> None:
    done = run(home, "add", "http://127.0.0.1:9/x", str(tmp_path / "other"), "--user", "anna", text="secret\n")
    assert isinstance(done.exception, UnavailableError)
    assert len(home.load().pairs) == 1
    assert "secret" not in "".join(path.read_text() for path in home.path.iterdir() if path.is_file())
    overlapping = run(home, "add", "http://127.0.0.1:9/x", str(tmp_path / "folder" / "in"))
    assert isinstance(overlapping.exception, ConfigurationError)
    assert json.loads(home.settings_file.read_text())["pairs"][0]["id"] == "p1"


def test_on_a_terminal_the_password_is_asked_for_and_not_shown(fs: MemoryFileSystem, tmp_path: Path) -> None:
    home, folder = Home(tmp_path / "home"), tmp_path / "folder"
    folder.mkdir()
    (folder / "here").write_bytes(b"1")
    fs.make_directory(("home", "there"))  # both have something: that is asked about too
    with our_gateway(fs, user="anna") as client:
        url = f"http://{client.host}:{client.port}/home"
        add = ["add", url, str(folder), "--user", "anna", "--home", str(home.path)]
        process, terminal = pty.fork()
        if process == 0:
            os.execv(sys.executable, [sys.executable, "-m", "syncagent", *add])
        try:
            shown = read_until(terminal, b"Password of anna: ")
            os.write(terminal, b"secret\n")
            shown += read_until(terminal, b"Go on? [Y/n]: ")
            os.write(terminal, b"y\n")
            shown += read_until(terminal, b"is kept equal with")
            read_until(terminal, b"")
        finally:
            os.close(terminal)
            _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert b"secret" not in shown
    [pair] = home.load().pairs
    assert (pair.user, load_password(home, pair.id)) == ("anna", "secret")


def read_until(terminal: int, wanted: bytes) -> bytes:
    """What a terminal shows up to that, or to its end."""
    shown = b""
    while not wanted or wanted not in shown:
        assert select.select([terminal], [], [], 60)[0], shown
        try:
            shown += os.read(terminal, 1024)
        except OSError:  # so Linux tells that the program has ended
            assert not wanted, shown
            break
    return shown
