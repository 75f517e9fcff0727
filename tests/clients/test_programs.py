"""Programs that nobody here wrote, on a real cluster with two workers: litmus, davfs2, rclone, cadaver, gio."""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.support.cluster import Cluster

Need = Callable[..., None]
SUITES = {"basic": 16, "copymove": 13, "props": 30, "locks": 41, "http": 4}


def run(*command: str, timeout: float = 300, check: bool = True, **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **options)  # type: ignore[call-overload]
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return str(done.stdout + done.stderr)


def compare(left: Path, right: Path) -> None:
    """Both trees have the same names and, byte for byte, the same files."""
    names = [sorted(str(path.relative_to(root)) for path in root.rglob("*")) for root in (left, right)]
    assert names[0] == names[1]
    files = [name for name in names[0] if (left / name).is_file()]
    _, different, wrong = filecmp.cmpfiles(left, right, files, shallow=False)
    assert not different
    assert not wrong


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real tree: the running Python's standard library, as it lies there, without what was installed into it."""
    target = tmp_path_factory.mktemp("library") / "lib"
    shutil.copytree(
        sysconfig.get_path("stdlib"), target, ignore=shutil.ignore_patterns("site-packages", "config-*", "*.so")
    )
    return target


@pytest.fixture
def tree(gateway_url: str, shared_cluster: Cluster, library: Path) -> Path:
    """What a program that takes its time copies: all of the library, or in the slow lane a part of it."""
    return library if gateway_url == shared_cluster.url else library / "email"


# litmus


@pytest.mark.parametrize("suite", SUITES)
def test_litmus(gateway_url: str, need: Need, tmp_path: Path, suite: str) -> None:
    need("litmus")
    said = run("litmus", "-k", gateway_url, env=os.environ | {"TESTS": suite}, cwd=tmp_path)
    assert f"of {SUITES[suite]} tests run: {SUITES[suite]} passed, 0 failed. 100.0%" in said
    assert "WARNING" not in said


# davfs2


@pytest.fixture
def mount(gateway_url: str, need: Need, tmp_path: Path) -> Iterator[Path]:
    """The drive, mounted by davfs2."""
    need("mount.davfs", "umount.davfs")
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("mounting needs root and /dev/fuse")
    configuration = tmp_path / "davfs2.conf"
    configuration.write_text("buf_size 256\nask_auth 0\ndelay_upload 0\n")
    configuration.chmod(0o600)
    where = tmp_path / "mount"
    where.mkdir()
    run("mount.davfs", "-o", f"conf={configuration}", gateway_url, str(where), timeout=60)
    yield where
    run("umount", str(where), timeout=300)


def until_equal(local: Path, mounted: Path, timeout: float = 120) -> None:
    """`diff -r` finds the trees equal, at the latest when davfs2's attributes are fresh.

    davfs2 lets the kernel keep attributes for a second, and those that `cp -a` sets before it closes a file say size 0:
    what was copied in the last second looks empty through the mount, on Apache's mod_dav as on Helenite.
    """
    deadline = time.monotonic() + timeout
    while said := run("diff", "-rq", str(local), str(mounted), timeout=600, check=False):
        assert time.monotonic() < deadline, said
        time.sleep(0.5)


@pytest.mark.timeout(900)
def test_davfs2_holds_the_standard_library(mount: Path, gateway_url: str, tree: Path) -> None:
    run("cp", "-a", str(tree), str(mount / "davfs"), timeout=600)
    with httpx.Client(base_url=gateway_url, timeout=60) as client:
        for path in (path for path in tree.rglob("*") if path.is_file()):
            name = quote(str(path.relative_to(tree)))
            assert client.get(f"davfs/{name}").content == path.read_bytes(), name
    until_equal(tree, mount / "davfs")
    (mount / "davfs").rename(mount / "davfs moved")
    assert not (mount / "davfs").exists()
    some = next(tree.glob("*.py"))
    assert (mount / "davfs moved" / some.name).read_bytes() == some.read_bytes()
    assert httpx.get(f"{gateway_url}davfs%20moved/{some.name}", timeout=60).content == some.read_bytes()
    run("rm", "-r", str(mount / "davfs moved"), timeout=600)
    assert httpx.get(f"{gateway_url}davfs%20moved/{some.name}", timeout=60).status_code == 404


def test_davfs2_edits_in_place(mount: Path) -> None:
    path = mount / "notes.txt"
    path.write_text("one\n")
    with path.open("a") as file:
        file.write("two\n")
    assert path.read_text() == "one\ntwo\n"
    path.write_text("three\n")
    assert path.read_text() == "three\n"
    (mount / "new").mkdir()
    path.rename(mount / "new" / "notes.txt")
    assert [path.name for path in (mount / "new").iterdir()] == ["notes.txt"]
    (mount / "new" / "notes.txt").unlink()
    (mount / "new").rmdir()


# rclone


def rclone(gateway_url: str, vendor: str, *words: str) -> str:
    remote = f":webdav,url='{gateway_url}',vendor={vendor}:"
    return run("rclone", "--config", os.devnull, *(word.replace("drive:", remote) for word in words))


@pytest.mark.parametrize("vendor", ["other", "owncloud"])
def test_rclone_copies_and_checks(gateway_url: str, need: Need, library: Path, tmp_path: Path, vendor: str) -> None:
    need("rclone")
    source = library / "email"
    rclone(gateway_url, vendor, "copy", str(source), f"drive:rclone {vendor}")
    assert "0 differences found" in rclone(
        gateway_url, vendor, "check", "--download", str(source), f"drive:rclone {vendor}"
    )
    rclone(gateway_url, vendor, "copy", f"drive:rclone {vendor}", str(tmp_path / "back"))
    compare(source, tmp_path / "back")
    if vendor == "owncloud":
        modified = int((source / "charset.py").stat().st_mtime)
        assert int((tmp_path / "back" / "charset.py").stat().st_mtime) == modified
        again = rclone(gateway_url, vendor, "copy", "-v", str(source), f"drive:rclone {vendor}")
        assert not re.search(r"Copied \((new|replaced)", again), "nothing has changed, so nothing travels"
    rclone(gateway_url, vendor, "moveto", f"drive:rclone {vendor}/mime", f"drive:rclone {vendor}/renamed")
    rclone(gateway_url, vendor, "purge", f"drive:rclone {vendor}")
    about = rclone(gateway_url, vendor, "about", "drive:")
    assert "Free:" in about


# cadaver


def test_cadaver(gateway_url: str, need: Need, tmp_path: Path) -> None:
    need("cadaver")
    (tmp_path / "local.txt").write_text("from cadaver\n")
    script = """
mkcol cadaver
cd cadaver
put local.txt
put local.txt second.txt
copy local.txt third.txt
move third.txt fourth.txt
ls
lock second.txt
unlock second.txt
propset second.txt colour blue
propget second.txt colour
propnames second.txt
get fourth.txt back.txt
delete second.txt
cd ..
rmcol cadaver
quit
"""
    said = run("cadaver", gateway_url, input=script, cwd=tmp_path, env=os.environ | {"HOME": str(tmp_path)})
    assert "failed" not in said.lower()
    assert "blue" in said
    assert (tmp_path / "back.txt").read_text() == "from cadaver\n"
    assert httpx.get(gateway_url + "cadaver/", timeout=60).status_code == 404


# gio (GNOME Files)


def test_gio(gateway_url: str, need: Need, library: Path, tmp_path: Path) -> None:
    need("gio", "dbus-run-session")
    drive = gateway_url.replace("http://", "dav://")
    (tmp_path / "runtime").mkdir(mode=0o700)
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path / "runtime"), "HOME": str(tmp_path)}
    script = f"""
set -e
gio mount {drive}
gio mkdir {drive}gio
gio copy {library / "os.py"} {drive}gio/os.py
gio list {drive}gio
gio copy {drive}gio/os.py {tmp_path / "back.py"}
gio rename {drive}gio/os.py renamed.py
gio remove {drive}gio/renamed.py
gio remove {drive}gio
gio mount -u {drive}
"""
    run("dbus-run-session", "--", "sh", "-c", script, env=environment, timeout=120)
    assert (tmp_path / "back.py").read_bytes() == (library / "os.py").read_bytes()
    assert httpx.get(gateway_url + "gio/", timeout=60).status_code == 404
