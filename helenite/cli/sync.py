"""`helenite sync …`: the sync agent's own commands, if the agent is installed."""

from __future__ import annotations

import typer

from helenite.core.errors import ConfigurationError


def load_app() -> typer.Typer:
    """The agent's commands; ConfigurationError without the optional packages that it needs."""
    try:
        from syncagent.cli import app  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ConfigurationError(f"the sync agent is not installed ({error}): pip install 'helenite[sync]'") from error
    return app
