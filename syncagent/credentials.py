"""Keeps passwords: in the system's keyring, or where there is none, in a file that only its owner may read.

Used by the commands, which ask for them, and by the daemon, which needs them. Any thread.
"""

from __future__ import annotations

import json
import logging

import keyring
import keyring.backends.fail
from keyring.errors import KeyringError

from syncagent.settings import Home, write_private

log = logging.getLogger(__name__)

SERVICE = "helenite-sync"
FILE = "credentials.json"


def save_password(home: Home, pair: str, password: str) -> str:
    """Keep the password of a pair; a word for where."""
    if _has_keyring():
        try:
            keyring.set_password(SERVICE, _name(home, pair), password)
            if keyring.get_password(SERVICE, _name(home, pair)) == password:  # one that is switched off keeps nothing
                return "keyring"
        except KeyringError as error:
            log.info("the keyring does not take the password: %s", error)
    _write(home, _read(home) | {pair: password})
    return "file"


def load_password(home: Home, pair: str) -> str:
    """The password of a pair; empty when none is kept."""
    kept = _read(home).get(pair)
    if kept is not None:
        return kept
    try:
        return (keyring.get_password(SERVICE, _name(home, pair)) if _has_keyring() else None) or ""
    except KeyringError as error:
        log.warning("the keyring does not give the password: %s", error)
        return ""


def forget_password(home: Home, pair: str) -> None:
    """Keep it no longer."""
    values = _read(home)
    if values.pop(pair, None) is not None:
        _write(home, values)
        return
    if _has_keyring():
        try:
            keyring.delete_password(SERVICE, _name(home, pair))
        except KeyringError as error:
            log.info("the keyring has no password to forget: %s", error)


def _has_keyring() -> bool:
    return not isinstance(keyring.get_keyring(), keyring.backends.fail.Keyring)


def _name(home: Home, pair: str) -> str:
    """Homes are told apart by their paths."""
    return f"{home.path}#{pair}"


def _read(home: Home) -> dict[str, str]:
    try:
        values: dict[str, str] = json.loads((home.path / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return values


def _write(home: Home, values: dict[str, str]) -> None:
    home.make()
    write_private(home.path / FILE, json.dumps(values))
