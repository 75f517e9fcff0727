"""What an audit proposes on damaged books, and that mending carries it out once and gives up nothing that was lost."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from helenite.core.errors import PreconditionFailedError, SequenceExpiredError
from helenite.core.model import ServerId
from helenite.core.record import HEADER
from helenite.master.audit import UNUSED_MIN, Audit, Auditor, Finding, judge_loss
from helenite.master.mutations import SetProperties
from helenite.master.namespace import Namespace
from helenite.master.stored import MendBatch
from tests.support.dumps import opened, take
from tests.support.entries import at, copy, fresh_commit, mkdir, ordered, put, remove
from tests.support.redis_audit import audit, chunk_table


def audited(namespace: Namespace) -> Audit:
    """The namespace as a snapshot of now shows it."""
    with tempfile.TemporaryDirectory(prefix="helenite-test-") as directory:
        take(namespace, Path(directory) / "dump")
        with opened(Path(directory) / "dump", Path(directory) / "scratch") as source:
            auditor = Auditor(source.url, namespace._store.space)
            try:
                return auditor.run()
            finally:
                auditor.close()


def batch(found: Audit, number: int = 1, repair: str = "one") -> MendBatch:
    actions = [finding.action for finding in found.findings if finding.action]
    return MendBatch(repair, number, found.mends, found.life, actions)


def collect(namespace: Namespace, epoch: int) -> None:
    while namespace.collect_garbage(epoch, trash_s=0, grace_s=0):
        pass


def shared_chunk(namespace: Namespace) -> int:
    """A chunk that three files name."""
    put(namespace, "/a")
    copy(namespace, "/a", "/b")
    copy(namespace, "/a", "/c")
    return int(next(chunk_table(namespace._store)))


def test_a_batch_that_is_repeated_is_carried_out_once(namespace: Namespace, epoch: int) -> None:
    handle = shared_chunk(namespace)
    namespace._store.command("HSET", "r", handle, 4)
    proposed = batch(audited(namespace))
    assert namespace.mend(proposed, epoch) == 1
    assert namespace.mend(proposed, epoch) == 1, "the first answer, again"
    audit(namespace._store)
    namespace._store.command("DEL", "op:mend:one:1")  # the repeat comes after the answer was forgotten
    with pytest.raises(PreconditionFailedError):
        namespace.mend(proposed, epoch)
    audit(namespace._store)


def test_batches_come_in_order(namespace: Namespace, epoch: int) -> None:
    shared_chunk(namespace)
    found = audited(namespace)
    namespace.mend(batch(found, 1), epoch)
    with pytest.raises(PreconditionFailedError):
        namespace.mend(batch(found, 3), epoch)
    namespace.mend(batch(found, 2), epoch)


def test_two_repairs_of_one_damage_correct_it_once(namespace: Namespace, epoch: int) -> None:
    handle = shared_chunk(namespace)
    namespace._store.command("HSET", "r", handle, 4)
    one, other = audited(namespace), audited(namespace)
    namespace.mend(batch(one), epoch)
    with pytest.raises(PreconditionFailedError, match="run fsck again"):
        namespace.mend(batch(other, repair="other"), epoch)
    audit(namespace._store)
    assert audited(namespace).findings == []
    namespace.mend(batch(audited(namespace), repair="other"), epoch)
    with pytest.raises(PreconditionFailedError):
        namespace.mend(batch(one, 2), epoch)


def test_a_repair_does_not_outlive_its_redis(namespace: Namespace, epoch: int) -> None:
    shared_chunk(namespace)
    found = audited(namespace)
    namespace._store.command("ZADD", "lives", 10**6, f"{10**5}:{10**6}")
    with pytest.raises(PreconditionFailedError, match="Redis was replaced"):
        namespace.mend(batch(found), epoch)


def test_a_lost_directory_gives_nothing_up(namespace: Namespace) -> None:
    mkdir(namespace, "/dir")
    for number in range(5):
        put(namespace, f"/dir/{number}")
    lost = HEADER.unpack_from(namespace._store.command("HGET", "d:1", "dir"))[2]
    namespace._store.command("UNLINK", f"d:{lost}")
    found = audited(namespace)
    assert found.loss == f"directory {lost} is gone (key d:{lost}), its totals name 5 files"
    assert {f.action["kind"] for f in found.findings if f.gives_up} == {"free", "totals"}
    assert not [f for f in found.findings if f.action and not f.gives_up]


def test_a_lost_record_gives_nothing_up(namespace: Namespace) -> None:
    put(namespace, "/a")
    put(namespace, "/b")
    namespace._store.command("HDEL", "d:1", "a")
    found = audited(namespace)
    assert "1 chunks are named by no record" in found.loss


def test_lost_extents_give_nothing_up(namespace: Namespace) -> None:
    big = put(namespace, "/big", chunks=20)
    namespace._store.command("UNLINK", f"e:{big.id}:{big.revision}")
    found = audited(namespace)
    assert "the extents of file" in found.loss
    assert sum(f.gives_up for f in found.findings) == 20


def test_a_single_chunk_without_a_record_is_freed(namespace: Namespace, epoch: int) -> None:
    put(namespace, "/a")
    commit = fresh_commit(namespace, "/b")
    namespace._store.command("HSET", "c:0", commit.fresh[0].handle, b"\0\1")
    found = audited(namespace)
    assert found.loss == ""
    assert namespace.mend(batch(found), epoch) == 1
    collect(namespace, epoch)
    audit(namespace._store)
    assert ordered(namespace, ServerId(1)) == [commit.fresh[0].handle]


def test_nothing_is_freed_while_deletions_are_stopped(namespace: Namespace, epoch: int) -> None:
    put(namespace, "/a")
    namespace._store.command("HSET", "c:0", namespace.next_handles(1), b"\0\1")
    found = audited(namespace)
    namespace.stop_deleting("a test", epoch)
    assert namespace.mend(batch(found), epoch) == 0


def test_many_chunks_without_a_record_are_a_loss() -> None:
    unused = Finding("", {"kind": "free", "handle": 1}, gives_up=True)
    assert judge_loss([], Audit([unused] * UNUSED_MIN)) == ""
    assert "named by no record" in judge_loss([], Audit([unused] * (UNUSED_MIN + 1)))
    assert judge_loss([], Audit([Finding("", {"kind": "totals"}, gives_up=True)])) == ""


def test_properties_of_a_living_entry_are_not_stray(namespace: Namespace, epoch: int) -> None:
    entry = put(namespace, "/a")
    namespace._store.command("HSET", f"x:{entry.id}", "{n}old", "<old/>")  # without the flag in the record
    namespace._store.command("HSET", "x:999", "{n}old", "<old/>")
    found = audited(namespace)
    assert [finding.action["key"] for finding in found.findings] == ["x:999"]
    namespace.apply(SetProperties(at("/a"), {"{n}new": b"<new/>"}, ()))
    assert namespace.mend(batch(found), epoch) == 1
    assert "{n}new" in namespace.lookup(at("/a"), with_properties=True).properties


def test_who_has_not_read_a_damaged_change_must_scan(namespace: Namespace, epoch: int) -> None:
    put(namespace, "/a")
    sequence = namespace.last_sequence()
    namespace._store.command("XADD", "feed", f"{sequence}-5", "c", b"\xff")
    put(namespace, "/b")
    assert namespace.mend(batch(audited(namespace)), epoch) == 1
    with pytest.raises(SequenceExpiredError):
        namespace.read_feed(sequence - 1, 10)
    changes, _ = namespace.read_feed(sequence, 10)
    assert [change.path for change in changes] == ["/b"]


def test_a_chunk_that_the_table_lost_comes_back_without_replicas(namespace: Namespace, epoch: int) -> None:
    handle = put(namespace, "/a").extents[0].handle
    namespace._store.command("HDEL", f"c:{handle // 128}", handle % 128)
    namespace._store.command("SADD", "del:1", handle)
    found = audited(namespace)
    assert found.unknown == {handle}
    entering = replace(batch(found), actions=[{"kind": "enter", "handle": handle, "servers": [1, 2]}])
    assert namespace.mend(entering, epoch) == 1
    assert namespace.locate([handle]) == [(handle, ())], "1 may just be deleting it"
    assert ordered(namespace, ServerId(1)) == []
    namespace.add_replicas([handle], ServerId(2), epoch)
    assert namespace.locate([handle]) == [(handle, (ServerId(2),))]


def test_a_count_that_is_mended_saves_a_chunk_that_came_to_look_unused(namespace: Namespace, epoch: int) -> None:
    put(namespace, "/a")
    copy(namespace, "/a", "/b")
    store = namespace._store
    ((handle, _),) = namespace.scan_chunks(0)[0]
    store.command("HDEL", "r", handle)  # the damage: two records, one is noted
    found = audited(namespace)
    # Meanwhile one of the two goes, and the chunk with it, as far as the wrong count tells.
    remove(namespace, "/b")
    while namespace.collect_garbage(epoch, trash_s=0, grace_s=600):
        pass
    assert store.command("ZCARD", "freed") == 1
    assert namespace.mend(batch(found), epoch) == 1
    assert store.command("ZCARD", "freed") == 0
    audit(store)
