"""The commands of the sync agent: `helenite sync …`, which is the same as `python -m syncagent …`.

Settings are changed in their file, and a daemon that runs is told to read them again; questions go to the daemon.
Errors are raised to whoever runs the commands, which has one sentence and one exit status for each.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import shutil
import sys
from datetime import UTC, datetime
from getpass import getpass
from pathlib import Path
from typing import Annotated, Any

import typer

from helenite.core.clock import Clock
from helenite.core.errors import ConfigurationError, HeleniteError, UnavailableError
from helenite.core.paths import Path as InnerPath
from helenite.core.paths import format_path, parse_path
from helenite.core.process import start_logging, stop_event_on_signals
from syncagent import login
from syncagent.control import ask
from syncagent.credentials import forget_password, save_password
from syncagent.daemon import DECISIONS, Daemon
from syncagent.joining import check_folder, connected, preview
from syncagent.names import IGNORE_FILE, STATE_DIRECTORY
from syncagent.session import Account
from syncagent.settings import Home, PairSettings, check_folder_is_free, default_home, new_pair_id
from syncagent.status import Mood, PairStatus, parse_status
from syncagent.throttle import RATE_MIN

app = typer.Typer(help="Keep a local folder and a folder on the server equal.", no_args_is_help=True)

HomeOption = Annotated[
    Path | None, typer.Option("--home", help="Where the agent keeps its files; default: the system's place for them.")
]
FolderArgument = Annotated[
    str, typer.Argument(help="The local folder, or anything in it; needed if there are several.")
]
PathArgument = Annotated[str, typer.Argument(help="A path in the synced folder, such as docs/letter.txt.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

DISPLAYS = ["DISPLAY", "WAYLAND_DISPLAY"]
"""The variables that tell of a screen on Linux."""

_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKmMgG]?)[bB]?(?:/s)?")
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}


def _home(given: Path | None) -> Home:
    return Home(given.absolute() if given is not None else default_home())


@app.command()
def add(
    url: Annotated[str, typer.Argument(help="The folder on the server: https://host/path")],
    folder: Annotated[str, typer.Argument(help="The local folder.")],
    user: Annotated[str, typer.Option("--user", help="Whom to log in as; the password is asked for, or read.")] = "",
    exclude: Annotated[list[str] | None, typer.Option("--exclude", help="A folder in it to leave out.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Begin without asking.")] = False,
    home: HomeOption = None,
) -> None:
    """Keep FOLDER equal with URL from now on."""
    agent, clock = _home(home), Clock()
    path = check_folder(folder)
    check_folder_is_free(agent.load(), path)
    password = _read_password(user) if user else ""
    pair = PairSettings(new_pair_id(), url, path, user, excluded=tuple(exclude or ()))
    with connected(Account(url, user, password), clock) as remote:
        agent.make()
        found = preview(remote, path, agent.pair_dir(f"{pair.id}-preview"), clock)
    if found is not None:
        print(found.sentence)
        if not yes and sys.stdin.isatty():
            typer.confirm("Go on?", default=True, abort=True)
    if user:
        save_password(agent, pair.id, password)
    with agent.edit() as draft:
        check_folder_is_free(draft.settings, path)
        draft.settings = dataclasses.replace(draft.settings, pairs=(*draft.settings.pairs, pair))
    is_running = _tell_daemon(agent)
    hint = "." if is_running else f" while this runs: helenite sync run{agent.option}"
    print(f"{path} is kept equal with {url}{hint}")


def _read_password(user: str) -> str:
    if sys.stdin.isatty():
        return getpass(f"Password of {user}: ")
    return sys.stdin.readline().rstrip("\r\n")


@app.command()
def run(
    no_tray: Annotated[bool, typer.Option("--no-tray", help="Without an icon.")] = False,
    log_level: Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")] = "info",
    display: Annotated[str, typer.Option(envvar=DISPLAYS, hidden=True)] = "",
    home: HomeOption = None,
) -> None:
    """Run the agent until it is stopped (Ctrl-C), with an icon if there is a desktop."""
    start_logging(log_level)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs each request
    reason = "not wanted" if no_tray else "" if display or sys.platform != "linux" else "there is no display"
    Daemon(_home(home), Clock(), reason).run(stop_event_on_signals())


@app.command()
def stop(home: HomeOption = None) -> None:
    """Stop the agent that runs."""
    ask(_home(home), "quit")


@app.command()
def status(as_json: Json = False, home: HomeOption = None) -> None:
    """How all folders are doing. Exit status 1 when one needs you, 3 when the agent is not running."""
    agent = _home(home)
    answer = ask(agent, "status")
    found = parse_status(answer)
    if as_json:
        print(json.dumps(answer, indent=2))
    else:
        for pair in found.pairs:
            _print_pair(pair, agent)
        if not found.pairs:
            print("no folder is synced yet; begin with: helenite sync add URL FOLDER")
        print(f"icon {found.tray}")
    if any(pair.mood is Mood.ATTENTION for pair in found.pairs):
        raise typer.Exit(1)


def _print_pair(pair: PairStatus, agent: Home) -> None:
    progress = f", {pair.done} of {pair.done + pair.left}" if pair.left else ""
    sentence = "" if pair.sentence == pair.mood else f": {pair.sentence}"
    print(f"{pair.folder}  {pair.mood}{sentence}{progress}")
    for trouble in [pair.watch_trouble, *pair.troubles]:
        if trouble:
            print(f"    {trouble}")
    if pair.conflicts:
        print(f"    conflict copies: {len(pair.conflicts)} (helenite sync conflicts{agent.option})")
    if pair.decisions:
        print(f"    say: helenite sync decide {' | '.join(pair.decisions)}{agent.option}")


@app.command()
def pause(folder: FolderArgument = "", home: HomeOption = None) -> None:
    """Leave a folder alone for the time being; all of them, if none is named."""
    _pause(_home(home), folder, is_paused=True)


@app.command()
def resume(folder: FolderArgument = "", home: HomeOption = None) -> None:
    """Go on with a folder that was paused; with all of them, if none is named."""
    _pause(_home(home), folder, is_paused=False)


def _pause(agent: Home, folder: str, *, is_paused: bool) -> None:
    agent.pause(folder, is_paused=is_paused)
    _tell_daemon(agent)


@app.command()
def history(
    folder: FolderArgument = "",
    count: Annotated[int, typer.Option("--count", "-n", min=1, help="How many lines.")] = 20,
    as_json: Json = False,
    home: HomeOption = None,
) -> None:
    """What the agent has changed last, on either side."""
    agent = _home(home)
    events = ask(agent, "history", pair=_id(agent, folder), count=count)["events"]
    if as_json:
        print(json.dumps(events, indent=2))
        return
    for event in events:
        at = datetime.fromtimestamp(event["at_ms"] / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        source = f"  (was {event['source']})" if event["source"] else ""
        print(f"{at}  {event['side']:<6}  {event['verb']:<8}  {event['path']}{source}")


@app.command()
def conflicts(folder: FolderArgument = "", as_json: Json = False, home: HomeOption = None) -> None:
    """The conflict copies that nobody has cleared away yet."""
    agent = _home(home)
    found = ask(agent, "conflicts", pair=_id(agent, folder))["conflicts"]
    print(json.dumps(found, indent=2) if as_json else "\n".join(found) or "none")


@app.command()
def explain(path: PathArgument, folder: FolderArgument = "", as_json: Json = False, home: HomeOption = None) -> None:
    """Why an entry is as it is: how it looks on both sides, and what comes next."""
    agent = _home(home)
    pair = agent.load().choose(folder)
    found = ask(agent, "explain", pair=pair.id, path=format_path(_inside(pair, path)))
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for node in found["nodes"]:
        print(f"{found['path']} ({node['kind']}): {node['sentence']}")
        for side in ("local", "remote"):
            state: dict[str, Any] | None = node[side]
            print(f"    {side}: " + ("absent" if state is None else f"{state['path']}, {state['size']} bytes"))
        if node["steps"]:
            print(f"    next: {', '.join(node['steps'])}")


@app.command()
def ignore(
    patterns: Annotated[list[str], typer.Argument(help="Rules as in .gitignore, such as '*.tmp' or 'build/'.")],
    folder: Annotated[str, typer.Option("--folder", help="Which folder, if there are several.")] = "",
    home: HomeOption = None,
) -> None:
    """Leave out what these rules describe, on all devices: the rules are synced with the folder."""
    agent = _home(home)
    pair = agent.load().choose(folder)
    file = Path(pair.folder) / IGNORE_FILE
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    known = text.splitlines()
    fresh = [pattern for pattern in patterns if pattern not in known]
    file.write_text("".join(f"{line}\n" for line in [*known, *fresh]), encoding="utf-8")
    _tell_daemon(agent, "sync", pair=pair.id)


@app.command()
def exclude(
    path: PathArgument,
    folder: FolderArgument = "",
    include: Annotated[bool, typer.Option("--undo", help="Sync it again.")] = False,
    home: HomeOption = None,
) -> None:
    """Leave out a folder on this device only.

    The server keeps it. Its copy on this device goes to the local trash as soon as everything in it is on the server;
    what was never synced stays where it is.
    """
    agent = _home(home)
    with agent.edit() as draft:
        pair = draft.settings.choose(folder)
        name = "/".join(_inside(pair, path))
        if not name:
            raise ConfigurationError("to leave out the whole folder, use: helenite sync remove")
        kept = tuple(old for old in pair.excluded if old != name)
        pair = dataclasses.replace(pair, excluded=kept if include else (*kept, name))
        draft.settings = draft.settings.replace(pair)
    _tell_daemon(agent)


@app.command()
def limit(
    up: Annotated[str | None, typer.Option("--up", help="Bytes a second, such as 500K or 2M; 0 for no limit.")] = None,
    down: Annotated[str | None, typer.Option("--down", help="The same for what comes down.")] = None,
    trash_days: Annotated[int | None, typer.Option("--trash-days", min=1, help="So long deletions stay.")] = None,
    trash_size: Annotated[
        str | None, typer.Option("--trash-size", help="Of each folder, such as 5G; 0: by disk.")
    ] = None,
    home: HomeOption = None,
) -> None:
    """How fast transfers may be, all folders together; how long and how much the local trashes keep."""
    agent = _home(home)
    wanted: dict[str, int | None] = {}
    for name, text in (("up_bytes_per_s", up), ("down_bytes_per_s", down), ("trash_bytes", trash_size)):
        if text is not None:
            wanted[name] = _parse_bytes(text)
    if any(0 < (wanted.get(name) or 0) < RATE_MIN for name in ("up_bytes_per_s", "down_bytes_per_s")):
        raise ConfigurationError(f"a rate is at least {RATE_MIN} bytes/s")
    if trash_days is not None:
        wanted["trash_days"] = trash_days
    with agent.edit() as draft:
        settings = draft.settings = dataclasses.replace(draft.settings, **wanted)  # type: ignore[arg-type]
    _tell_daemon(agent)
    for word, rate in (("up", settings.up_bytes_per_s), ("down", settings.down_bytes_per_s)):
        print(f"{word}: " + ("no limit" if rate is None else f"{rate} bytes/s"))
    size = "a tenth of the disk" if settings.trash_bytes is None else f"{settings.trash_bytes} bytes"
    print(f"trash: {settings.trash_days} days, {size}")


def _parse_bytes(text: str) -> int | None:
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise ConfigurationError(f"{text!r} is no number of bytes; write it as 500K or 2M, or 0 for no limit")
    return int(float(match[1]) * _UNITS[match[2].lower()]) or None


@app.command()
def decide(
    decision: Annotated[str, typer.Argument(help="allow, undo or start-over")],
    folder: FolderArgument = "",
    home: HomeOption = None,
) -> None:
    """Answer the agent, which has stopped to ask.

    allow: the deletions are wanted. undo: what is still on one side comes back on the other. start-over: take both
    sides as they are, unite them and delete nothing.
    """
    if decision not in DECISIONS:
        raise ConfigurationError(f"say one of: {', '.join(DECISIONS)}")
    agent = _home(home)
    ask(agent, "decide", pair=_id(agent, folder), decision=decision)


@app.command()
def autostart(
    switch: Annotated[str, typer.Argument(help="on, off or status")],
    system: Annotated[str, typer.Option("--as", help="On Linux: xdg (a desktop) or systemd.")] = "",
    display: Annotated[str, typer.Option(envvar=DISPLAYS, hidden=True)] = "",
    home: HomeOption = None,
) -> None:
    """Start the agent whenever you log in."""
    agent = _home(home)
    match switch:
        case "on":
            chosen = login.choose_system(system, has_display=bool(display))
            print(f"on, from the next login ({chosen}: {login.switch_on(chosen, agent)})")
        case "off":
            print("off" if login.switch_off(agent) else "it was off already")
        case "status":
            print(", ".join(f"on ({found})" for found in login.active_systems(agent)) or "off")
        case _:
            raise ConfigurationError("say one of: on, off, status")


@app.command()
def remove(folder: FolderArgument = "", home: HomeOption = None) -> None:
    """Keep a folder equal no longer. Nothing is deleted on either side."""
    agent = _home(home)
    with agent.edit() as draft:
        pair = draft.settings.choose(folder)
        kept = tuple(old for old in draft.settings.pairs if old.id != pair.id)
        draft.settings = dataclasses.replace(draft.settings, pairs=kept)
    _tell_daemon(agent)
    forget_password(agent, pair.id)
    shutil.rmtree(agent.pair_dir(pair.id), ignore_errors=True)
    (Path(pair.folder) / STATE_DIRECTORY / "pair").unlink(missing_ok=True)


def _inside(pair: PairSettings, text: str) -> InnerPath:
    """A path in the synced folder, as a person gives it: from its top, or as a whole."""
    path = Path(text)
    if path.is_absolute() or text.startswith("~"):
        whole = Path(os.path.realpath(path.expanduser().parent), path.name)
        if not whole.is_relative_to(pair.folder):
            raise ConfigurationError(f"{text} is not in {pair.folder}")
        path = whole.relative_to(pair.folder)
    return parse_path(f"/{path.as_posix()}" if path.parts else "/")


def _id(agent: Home, folder: str) -> str:
    return agent.load().choose(folder).id


def _tell_daemon(agent: Home, command: str = "reload", **values: Any) -> bool:
    """Whether a daemon runs and knows now."""
    try:
        ask(agent, command, **values)
    except UnavailableError:
        return False
    return True


def main() -> None:
    """The agent's own command line; exit status as `helenite` has it."""
    try:
        app(prog_name="helenite sync")
    except (HeleniteError, OSError) as error:
        print(f"helenite sync: {error}", file=sys.stderr)
        sys.exit(status_of(error))


def status_of(error: Exception) -> int:
    """2: wrong usage or settings; 3: server or agent cannot be reached; 1: anything else."""
    match error:
        case ConfigurationError():
            return 2
        case UnavailableError():
            return 3
        case _:
            return 1
