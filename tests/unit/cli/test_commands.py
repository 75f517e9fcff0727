"""The `helenite` command as a whole: which commands there are, that README has them, and the agent's among them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from helenite.cli import __main__ as program
from helenite.cli.sync import load_app

README = Path(__file__).parents[3] / "README.md"


def helenite(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "helenite.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def names_in(app: typer.Typer) -> dict[str, set[str]]:
    """Its commands; those that are groups have some of their own."""
    found = typer.main.get_command(app).commands  # type: ignore[attr-defined] - a click.Group
    return {name: set(getattr(command, "commands", ())) for name, command in found.items()}


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    app = typer.Typer()
    monkeypatch.setattr(program, "app", app)
    program.gather("")
    return names_in(app)


def test_readme_has_every_command_and_no_other(commands: dict[str, set[str]]) -> None:
    readme = README.read_text()
    named: dict[str, set[str]] = {"sync": set()}  # which has a chapter of its own
    for cell in re.findall(r"^\| (`helenite [^|]+) \|", readme, re.MULTILINE):
        for line in re.findall(r"`helenite ([^`]+)`", cell):
            first, *others = re.findall(r"(?<![-\w])[a-z]+", line)  # not the options
            named |= {first: set(others)} if commands.get(first) else {word: set() for word in [first, *others]}
    assert named == commands


def test_what_readme_says_of_sync_exists() -> None:
    readme = README.read_text()
    named = set(re.findall(r"^helenite sync (\w+)", readme, re.MULTILINE))
    for line in re.findall(r"^helenite sync .* # also: (.*)$", readme, re.MULTILINE):
        named |= set(re.findall(r"\b[a-z]+\b", line))
    assert len(named) > 8
    assert named <= set(names_in(load_app()))


def test_the_agents_commands_are_commands_of_helenite() -> None:
    assert re.search(r"^\s+sync\b", helenite("--help").stdout, re.MULTILINE)
    shown = helenite("sync", "--help")
    assert shown.returncode == 0
    for name in names_in(load_app()):
        assert re.search(rf"^\s+{name}\b", shown.stdout, re.MULTILINE), name
    assert "Keep FOLDER equal with URL" in helenite("sync", "add", "--help").stdout


def test_without_the_agents_packages_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['watchdog'] = None; sys.argv = ['helenite', 'sync', 'status'];"
        "from helenite.cli.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("helenite: the sync agent is not installed (")
    assert done.stderr.endswith("): pip install 'helenite[sync]'\n")
