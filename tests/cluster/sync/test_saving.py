"""Two agents: files that are being written, saved as programs do, deleted and edited while they travel."""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from helenite.core.process import Worker
from syncagent.patience import QUIET_S
from tests.cluster.sync.conftest import Scene
from tests.support.cluster import Cluster
from tests.support.raw_http import Client
from tests.support.sync_agents import Agent
from tests.support.waiting import wait_until

LARGE = 24_000_000


def arrivals(agent: Agent, path: str) -> int:
    """How often content came to a path."""
    return sum(event["verb"] == "received" and event["path"] == path for event in agent.history())


def shows(agent: Agent, path: str, content: bytes, within_s: float = 60.0) -> None:
    def is_there() -> bool:
        try:
            return (agent.folder / path).read_bytes() == content
        except FileNotFoundError:
            return False

    wait_until(is_there, within_s)


class Pauses:
    """Counts when a writer was held up for so long that an agent may take the file for complete."""

    def __init__(self) -> None:
        self.count = 0
        self._before = time.monotonic()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.count += time.monotonic() - self._before >= QUIET_S
        self._before = began


def test_a_slow_writer_is_never_seen_half(scene: Scene) -> None:
    """Whatever arrives has been the whole file at some time, and little of what was on the way does."""
    written = [b""]
    pauses = Pauses()
    with (scene.here / "slow").open("wb", buffering=0) as file:
        for number in range(60):
            piece = b"%09d\n" % number
            with pauses.writing():
                file.write(piece)
            written.append(written[-1] + piece)
            threading.Event().wait(0.02)  # as the writer goes
            if (scene.there / "slow").exists():
                assert (scene.there / "slow").read_bytes() in written
    assert scene.settle() == {"slow": written[-1]}
    assert arrivals(scene.bert, f"{scene.name}/slow") <= 3 + pauses.count


def test_a_log_that_grows_starves_nobody(scene: Scene) -> None:
    scene.write(log=b"")
    scene.settle()
    sent = arrivals(scene.bert, f"{scene.name}/log")
    pauses = Pauses()

    def append(stop: threading.Event) -> None:
        while not stop.wait(0.05):
            with pauses.writing(), (scene.here / "log").open("ab") as log:
                log.write(b"a line\n")

    writer = Worker("appends to a log", append).start()
    for number in range(5):
        scene.write(**{f"note {number}": b"%d" % number})
        shows(scene.bert, f"{scene.name}/note {number}", b"%d" % number)
    writer.stop()
    tree = scene.settle()
    assert tree["log"] == (scene.here / "log").read_bytes()
    assert arrivals(scene.bert, f"{scene.name}/log") - sent <= 3 + pauses.count


def test_a_save_that_takes_a_file_away_for_a_moment_deletes_nothing_there(scene: Scene) -> None:
    """As programs do that move the old file away, then write the new one: the other side never sees it gone."""
    scene.write(**{"letter.txt": b"first"})
    scene.settle()
    file = scene.there / "letter.txt"
    was_gone = threading.Event()
    looking = threading.Event()

    def look(stop: threading.Event) -> None:
        looking.set()
        while not stop.is_set():
            if not file.exists():
                was_gone.set()
            stop.wait(0.001)

    def save(content: bytes) -> float:
        """Save it and wait until it is there; how long it was away here."""
        if saves % 2:  # nobody has changed it for long
            os.utime(scene.here / "letter.txt", (1_000_000_000, 1_000_000_000))
            wait_until(lambda: (scene.there / "letter.txt").stat().st_mtime == 1_000_000_000)
        wait_until(scene.anna.is_settled)
        cycles, began = scene.anna.status()["cycles"], time.monotonic()
        (scene.here / "letter.txt").rename(scene.here / "letter.txt~")
        wait_until(lambda: scene.anna.status()["cycles"] > cycles)  # it was noticed
        (scene.here / "letter.new").write_bytes(content)
        (scene.here / "letter.new").rename(scene.here / "letter.txt")
        took_s = time.monotonic() - began
        (scene.here / "letter.txt~").unlink()
        shows(scene.bert, f"{scene.name}/letter.txt", content)
        return took_s

    looker = Worker("looks at a file", look).start()
    looking.wait(10)
    saves, good = 0, [0, 0]  # of the fresh file, and of the old one
    while min(good) < 3:
        saves += 1
        assert saves <= 40, f"only {good} saves were quick enough"
        if save(b"save %d" % saves) < QUIET_S / 2:
            good[saves % 2] += 1
            assert not was_gone.is_set()
        was_gone.clear()  # a save that is held up for longer may be seen
    looker.stop()
    assert scene.settle() == {"letter.txt": b"save %d" % saves}
    assert scene.server.remote.list((scene.name,))[0].path[-1] == "letter.txt"


def test_safe_saves_keep_the_file(scene: Scene) -> None:
    """Each way is one new revision of the same resource, and no deletion."""
    scene.write(doc=b"0")
    scene.settle()
    here = scene.here

    def replace_by_rename(content: bytes) -> None:  # gedit, LibreOffice, most others
        (here / ".doc.tmp").write_bytes(content)
        (here / ".doc.tmp").replace(here / "doc")

    def backup_then_write(content: bytes) -> None:  # vim
        (here / "doc").rename(here / "doc~")
        (here / "doc").write_bytes(content)
        (here / "doc~").unlink()

    def exchange_with_temporary(content: bytes) -> None:  # MS Office
        (here / "~$doc").write_bytes(b"owner")
        (here / "AB12.tmp").write_bytes(content)
        (here / "doc").rename(here / "CD34.tmp")
        (here / "AB12.tmp").rename(here / "doc")
        (here / "CD34.tmp").unlink()
        (here / "~$doc").unlink()

    def in_a_folder(content: bytes) -> None:  # macOS
        (here / "doc.sb-1a2b").mkdir()
        (here / "doc.sb-1a2b" / "doc").write_bytes(content)
        (here / "doc.sb-1a2b" / "doc").replace(here / "doc")
        (here / "doc.sb-1a2b").rmdir()

    def in_place(content: bytes) -> None:
        with (here / "doc").open("r+b") as file:
            file.write(content)
            file.truncate()

    resource = scene.server.remote.list((scene.name,))[0].stamp.resource
    for number, save in enumerate(
        (replace_by_rename, backup_then_write, exchange_with_temporary, in_a_folder, in_place)
    ):
        content = b"saved %d" % number
        save(content)
        shows(scene.bert, f"{scene.name}/doc", content)
        assert scene.settle() == {"doc": content}
        (entry,) = scene.server.remote.list((scene.name,))
        assert entry.stamp.resource == resource, save.__name__


def test_locks_of_office_programs_stay_here(scene: Scene) -> None:
    scene.write(**{".~lock.letter.odt#": b"anna", "~$letter.docx": b"anna", "letter.odt": b"text"})
    shows(scene.bert, f"{scene.name}/letter.odt", b"text")
    assert [path.name for path in scene.there.iterdir()] == ["letter.odt"]
    (scene.here / ".~lock.letter.odt#").unlink()
    (scene.here / "~$letter.docx").unlink()
    assert scene.settle() == {"letter.odt": b"text"}


def test_files_that_live_for_a_moment(scene: Scene) -> None:
    before = len(scene.anna.history())
    for number in range(500):
        file = scene.here / f"moment {number}"
        file.write_bytes(b"x")
        file.unlink()
    scene.write(stays=b"stays")
    assert scene.settle() == {"stays": b"stays"}
    assert len(scene.anna.history()) - before <= 20


def test_a_file_is_written_through_memory(scene: Scene) -> None:
    scene.write(mapped=b"\0" * 4096)
    scene.settle()
    with (scene.here / "mapped").open("r+b") as file, mmap.mmap(file.fileno(), 4096) as memory:
        memory[:5] = b"hello"
        memory.flush()
    scene.anna.look_everywhere()  # nothing tells of this but a look
    assert scene.settle()["mapped"] == b"hello" + b"\0" * 4091


def test_a_file_is_deleted_while_it_is_sent(scene: Scene) -> None:
    scene.anna.command("limit", "--up", "1M")
    scene.write(big=os.urandom(5_000_000))
    wait_until(lambda: scene.anna.status()["left"] > 0)
    (scene.here / "big").unlink()
    scene.anna.command("limit", "--up", "0")
    assert scene.settle() == {}
    assert scene.anna.staged() == []


def test_a_file_is_edited_while_its_new_revision_comes(scene: Scene) -> None:
    scene.write(f=b"old")
    scene.settle()
    scene.bert.command("limit", "--down", "1M")
    content = os.urandom(5_000_000)
    scene.write(f=content)
    wait_until(lambda: scene.bert.staged_bytes() > 100_000)
    (scene.there / "f").write_bytes(b"edited there meanwhile")
    scene.bert.command("limit", "--down", "0")
    tree = scene.settle()
    assert tree["f"] == content
    assert sorted(tree.values(), key=len)[0] == b"edited there meanwhile"  # type: ignore[arg-type]
    assert len(tree) == 2


def test_a_file_appears_where_another_is_on_its_way(scene: Scene) -> None:
    scene.bert.command("limit", "--down", "1M")
    content = os.urandom(5_000_000)
    scene.write(new=content)
    wait_until(lambda: scene.bert.staged_bytes() > 100_000)
    (scene.there / "new").write_bytes(b"mine")
    scene.bert.command("limit", "--down", "0")
    tree = scene.settle()
    assert tree["new"] == content
    assert b"mine" in tree.values()
    assert len(tree) == 2


def test_a_small_save_beside_a_large_file(scene: Scene) -> None:
    """A 1 KB save does not wait behind what is large, in either direction."""
    scene.write(note=b"0" * 1000)
    scene.settle()
    scene.anna.command("limit", "--up", "500K")  # it takes 48 s, and what is small a few
    large = os.urandom(LARGE)
    scene.write(large=large)
    wait_until(lambda: scene.anna.status()["left"] > 0)
    for number in range(1, 4):
        scene.write(note=b"%d" % number * 1000)
        shows(scene.bert, f"{scene.name}/note", b"%d" % number * 1000)
        (scene.there / "back").write_bytes(b"%d" % number)
        shows(scene.anna, f"{scene.name}/back", b"%d" % number)
    assert not (scene.there / "large").exists()  # it was on its way all the time
    scene.anna.command("limit", "--up", "0")
    assert scene.settle()["large"] == large


def test_a_limit_holds_and_is_used(scene: Scene) -> None:
    def bring(name: str) -> float:
        began = time.monotonic()
        content = os.urandom(5_000_000)
        scene.write(**{name: content})
        shows(scene.bert, f"{scene.name}/{name}", content, 120)
        return time.monotonic() - began

    free_s = bring("free")  # what all else takes on this machine, just now
    scene.anna.command("limit", "--up", "1M")
    took_s = bring("limited")
    scene.anna.command("limit", "--up", "0")
    assert 4.5 <= took_s <= 10 + 4 * free_s  # 5 s of sending
    scene.settle()


def test_leftovers_of_aborted_downloads(scene: Scene) -> None:
    """A download that broke off goes on; one that nobody wants any more goes away."""
    scene.bert.command("limit", "--down", "1M")
    content = os.urandom(6_000_000)
    scene.write(wanted=content, unwanted=os.urandom(6_000_000))
    wait_until(lambda: scene.bert.staged_bytes() > 500_000)
    scene.bert.kill()
    assert scene.bert.staged() != []
    (scene.here / "unwanted").unlink()
    scene.settle_alone(scene.anna)
    scene.bert.command("limit", "--down", "0")
    scene.bert.start()
    assert scene.settle() == {"wanted": content}
    week_s = 8 * 24 * 3600
    for file in scene.bert.staged():
        os.utime(file, (file.stat().st_mtime - week_s,) * 2)
    scene.bert.stop()
    scene.bert.start()
    scene.settle()
    assert scene.bert.staged() == []


def test_a_file_that_is_locked_on_the_server_waits_and_nothing_else_does(scene: Scene, cluster: Cluster) -> None:
    scene.write(locked=b"0", other=b"0")
    scene.settle()
    where = urlsplit(cluster.url)
    client = Client(where.hostname or "", where.port or 0)
    target = f"/shared/{scene.name}/locked"
    body = (
        b'<?xml version="1.0"?><lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope>'
        b"<locktype><write/></locktype></lockinfo>"
    )
    reply = client("LOCK", target, {"Timeout": "Second-600", "Content-Length": str(len(body))}, body)
    assert reply.status == 200
    token = reply["lock-token"]
    scene.write(locked=b"1", other=b"1")
    shows(scene.bert, f"{scene.name}/other", b"1")
    wait_until(lambda: any("locked" in trouble for trouble in scene.anna.status()["troubles"]))
    assert (scene.there / "locked").read_bytes() == b"0"
    assert client("UNLOCK", target, {"Lock-Token": token}).status == 204
    shows(scene.bert, f"{scene.name}/locked", b"1", 180)  # a try that met the lock's end may be followed late
    scene.settle()
