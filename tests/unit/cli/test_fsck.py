from helenite.cli.fsck import Tally, Wanted, judge
from helenite.core.model import ChunkHandle, ServerId

A, B = ChunkHandle(1), ChunkHandle(2)
SERVERS = (ServerId(1), ServerId(2))


def test_all_replicas_healthy() -> None:
    report = judge(1, {A: Wanted(SERVERS, ["/a"])}, {A: Tally(good=2)}, 2, [])
    assert report.exit_status == 0
    assert not report.degraded
    assert not report.lost


def test_a_missing_replica_degrades_the_files_that_share_the_chunk() -> None:
    report = judge(2, {A: Wanted(SERVERS, ["/a", "/copy of a"])}, {A: Tally(good=1)}, 2, [])
    assert (report.exit_status, report.degraded, report.lost) == (1, ("/a", "/copy of a"), ())


def test_no_replica_loses_the_file_even_if_its_other_chunk_is_fine() -> None:
    report = judge(1, {A: Wanted(SERVERS, ["/a"]), B: Wanted(SERVERS, ["/a"])}, {A: Tally(good=1)}, 2, [])
    assert (report.exit_status, report.degraded, report.lost) == (2, (), ("/a",))


def test_a_problem_without_a_file_is_still_degraded() -> None:
    assert judge(0, {}, {}, 3, ["chunkserver 1 does not answer"]).exit_status == 1


def test_what_could_not_be_asked_about_is_not_called_lost() -> None:
    report = judge(1, {A: Wanted(SERVERS, ["/a"])}, {A: Tally(unchecked=2)}, 2, ["chunkserver 1 does not answer"])
    assert (report.exit_status, report.degraded, report.lost) == (1, ("/a",), ())
