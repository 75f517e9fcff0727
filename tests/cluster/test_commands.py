"""The command line on a real cluster: what goes in comes out, and mistakes get a sentence."""

from __future__ import annotations

import filecmp
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.cluster import Cluster


def ok(cluster: Cluster, *arguments: str, **options: str) -> str:
    done = cluster.helenite(*arguments, **options)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def test_a_tree_goes_in_and_out(shared_cluster: Cluster, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    (source / "sub" / "empty").mkdir(parents=True)
    (source / "zero").touch()
    (source / "sub" / "some [odd] näme").write_bytes(os.urandom(100_000))
    (source / "large").write_bytes(os.urandom(9_000_000))
    os.utime(source / "zero", (1_000_000_000, 1_000_000_000))
    ok(shared_cluster, "put", str(source), "/")
    ok(shared_cluster, "get", "/tree", str(tmp_path / "back"))
    compared = filecmp.dircmp(source, tmp_path / "back")
    assert not compared.left_only
    assert not compared.right_only
    assert not compared.diff_files
    assert (tmp_path / "back" / "sub" / "empty").is_dir()
    assert (tmp_path / "back" / "sub" / "some [odd] näme").read_bytes() == (
        source / "sub" / "some [odd] näme"
    ).read_bytes()
    assert (tmp_path / "back" / "zero").stat().st_mtime == 1_000_000_000
    assert "some [odd] näme" in ok(shared_cluster, "tree", "/tree")
    sums = json.loads(ok(shared_cluster, "du", "/tree", "--json"))
    assert sums == {"bytes": 9_100_000, "files": 3, "directories": 2}


def test_standard_input_and_output(shared_cluster: Cluster) -> None:
    ok(shared_cluster, "put", "-", "/from stdin", input="a line\n")
    assert ok(shared_cluster, "cat", "/from stdin") == "a line\n"
    assert ok(shared_cluster, "get", "/from stdin", "-") == "a line\n"


def test_move_copy_remove_restore(shared_cluster: Cluster) -> None:
    ok(shared_cluster, "mkdir", "/desk")
    ok(shared_cluster, "put", "-", "/desk/a", input="1")
    ok(shared_cluster, "cp", "/desk/a", "/desk/b")
    ok(shared_cluster, "mv", "/desk/b", "/desk/c")
    assert ok(shared_cluster, "cat", "/desk/c") == "1"
    refused = shared_cluster.helenite("cp", "/desk/a", "/desk/c")
    assert refused.returncode == 1
    assert "exists" in refused.stderr
    refused = shared_cluster.helenite("rm", "/desk")
    assert refused.returncode == 1
    assert "-r" in refused.stderr
    ok(shared_cluster, "rm", "-r", "/desk")
    assert shared_cluster.helenite("ls", "/desk").returncode == 1
    (item,) = [item for item in json.loads(ok(shared_cluster, "trash", "ls", "--json")) if item["path"] == "/desk"]
    ok(shared_cluster, "trash", "restore", str(item["id"]))
    assert ok(shared_cluster, "cat", "/desk/c") == "1"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["cat", "/missing"], "/missing"),
        (["cat", "/"], "directory"),
        (["ls", "relative"], "starts with"),
        (["mkdir", "/no/parent"], "/no"),
        (["put", "no such file", "/"], "no such file"),
        (["mv", "/missing", "/x"], "/missing"),
        (["get", "/missing", "."], "/missing"),
        (["trash", "restore", "999999999"], "999999999"),
        (["user", "rm", "nobody"], "nobody"),
    ],
)
def test_mistakes_get_a_sentence(shared_cluster: Cluster, arguments: list[str], says: str) -> None:
    done = shared_cluster.helenite(*arguments)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_download_that_fails_leaves_nothing(shared_cluster: Cluster, tmp_path: Path) -> None:
    done = shared_cluster.helenite("get", "/missing", str(tmp_path / "x"))
    assert done.returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_a_download_into_a_pipe_or_device_does_not_replace_it(shared_cluster: Cluster, tmp_path: Path) -> None:
    """As root, `get /large /dev/null` left a machine without /dev/null."""
    ok(shared_cluster, "put", "-", "/for a pipe", input="a line")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reading = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reading.start()
    ok(shared_cluster, "get", "/for a pipe", str(pipe))
    reading.join(10)
    assert read == [b"a line"]
    assert pipe.is_fifo()
    refused = shared_cluster.helenite("dump", str(pipe))
    assert refused.returncode == 1
    assert "no file" in refused.stderr
    assert pipe.is_fifo()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_ended_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    """Other than killed: a temporary Redis holds all metadata in a directory of its own."""
    program = (
        "import tempfile, threading\nfrom helenite.cli.__main__ import end_in_order\nend_in_order()\n"
        "with tempfile.TemporaryDirectory() as name:\n    print(name, flush=True)\n    threading.Event().wait()\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(tmp_path)}
    ) as it:
        assert it.stdout is not None
        made = Path(it.stdout.readline().strip())
        assert made.is_dir()
        it.send_signal(number)
        assert it.wait(20) == 128 + number
    assert not made.exists()
