"""The HTTP API as a process: `python -m helenite.client` (config.ApiSettings); needs the `api` extra."""

from __future__ import annotations

import sys

from helenite.client.filesystem import FileSystem
from helenite.config import ApiSettings, environment
from helenite.core.errors import ConfigurationError
from helenite.core.process import CONFIGURATION_EXIT, start_logging


def main() -> int:
    """Serve until SIGTERM; the exit status."""
    try:
        settings = ApiSettings.from_env(environment())
        try:
            import uvicorn  # noqa: PLC0415 - the `api` extra

            from helenite.client.api import make_app  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise ConfigurationError(f"{error.name} is not installed: pip install 'helenite[api]'") from error
    except ConfigurationError as error:
        print(f"helenite.client: {error}", file=sys.stderr)
        return CONFIGURATION_EXIT
    start_logging(settings.log_level)
    host, _, port = settings.listen.rpartition(":")
    with FileSystem(settings) as cluster:
        uvicorn.run(make_app(cluster), host=host.strip("[]"), port=int(port), log_config=None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
