import dataclasses
import re
from pathlib import Path

import pytest

from helenite.config import SETTINGS, ChunkserverSettings, GatewaySettings, MasterSettings, parse_size
from helenite.core.errors import ConfigurationError

ROOT = Path(__file__).parents[2]
INTERNAL = {"HELENITE_SUPERVISED", "HELENITE_READY_FD"}


def test_env_example_lists_every_setting_with_its_default() -> None:
    shown = dict(re.findall(r"^#?(HELENITE_\w+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    known = {field.metadata["variable"]: field for settings in SETTINGS for field in dataclasses.fields(settings)}
    assert set(shown) == set(known) - INTERNAL
    for variable, text in shown.items():
        field = known[variable]
        assert text == "" or field.metadata["parse"](text) == field.default, variable


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("123", 123), ("4k", 4096), ("64MiB", 64 << 20), ("10G", 10 << 30), ("1 tb", 1 << 40)],
)
def test_sizes(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "-1", "1.5G", "ten", "10x", "10 GG"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="no size"):
        parse_size(text)


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "a minute"])
def test_durations_that_are_none(text: str) -> None:
    with pytest.raises(ConfigurationError, match="HELENITE_WEBDAV_TRUST_S"):
        GatewaySettings.from_env({"HELENITE_WEBDAV_TRUST_S": text})


@pytest.mark.parametrize("text", ["garbage", "host", "host:", "host:port", "host:65536", "a:1,b"])
def test_masters_that_are_no_addresses_are_told_at_once(text: str) -> None:
    with pytest.raises(ConfigurationError, match="HELENITE_MASTERS"):
        ChunkserverSettings.from_env({"HELENITE_MASTERS": text, "HELENITE_CHUNK_DIR": "d"})


def test_a_wrong_value_names_its_variable() -> None:
    with pytest.raises(ConfigurationError, match="HELENITE_REPLICAS"):
        MasterSettings.from_env({"HELENITE_REPLICAS": "three"})


@pytest.mark.parametrize(
    "environ",
    [
        {"HELENITE_CHUNK_BYTES": "512k"},
        {"HELENITE_CHUNK_BYTES": "65MiB"},
        {"HELENITE_REPLICAS": "1"},
        {"HELENITE_MIN_REPLICAS": "0"},
        {"HELENITE_MASTER_LISTEN": "7600"},
    ],
)
def test_settings_that_cannot_work_are_refused(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        MasterSettings.from_env(environ)


def test_a_chunkserver_needs_its_directory() -> None:
    with pytest.raises(ConfigurationError, match="HELENITE_CHUNK_DIR"):
        ChunkserverSettings.from_env({})


def test_certificate_and_key_belong_together() -> None:
    with pytest.raises(ConfigurationError, match="belong together"):
        GatewaySettings.from_env({"HELENITE_TLS_CERT": "cert.pem"})
