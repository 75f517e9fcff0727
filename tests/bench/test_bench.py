"""The benchmark runs end to end, compares what comes back, and its targets say what they should."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from tests.bench.__main__ import Choice, run
from tests.bench.curves import Point
from tests.bench.http_client import Reply
from tests.bench.profiles import ANSWERING, answering, parse_stacks
from tests.bench.report import print_report
from tests.bench.results import Results, Sample
from tests.bench.rows import ROWS
from tests.bench.servers import LOOPBACK, SERVERS, Running
from tests.bench.site import Content, Site, Sizes, WrongBytesError, check_equal, parse_listing
from tests.bench.targets import TARGETS, Bound, Target, judge

TINY = Sizes(large_bytes=3 << 20, entries=20, duration_s=0.05, repeats=1)


@pytest.mark.timeout(90)
def test_all_rows_run_on_helenite_and_wsgidav(tmp_path: Path) -> None:
    servers = tuple(server for server in SERVERS if server.key in {"helenite", "wsgidav"})
    results = run(Choice(ROWS, servers, 1, TINY), tmp_path, Console(quiet=True))
    figures = results.figures()
    assert results.wrong == []
    assert set(figures) == {(row.key, server.key) for row in ROWS for server in servers}
    assert all(figure > 0 for figure in figures.values())
    print_report(results, Console(file=sys.stdout, width=200))
    results.save(tmp_path / "run.json")
    assert json.loads((tmp_path / "run.json").read_text())["medians"]["ranges"].keys() == {"helenite", "wsgidav"}


def test_charts_are_drawn(tmp_path: Path) -> None:
    chart = pytest.importorskip("tests.bench.chart", reason="no matplotlib", exc_type=ImportError)
    results = Results({}, TINY, {"helenite": "1", "apache": "2"}, {})
    for number, row in enumerate(ROWS):
        results.samples += [Sample(row.key, key, 0, number + 1.0, "", 0.0) for key in results.versions]
    chart.draw_chart(results, tmp_path / "run")
    points = [Point("files", grown, {"GET": 5.0}, {"redis": (10, 20), "master": (30, 40)}) for grown in (10, 100)]
    chart.draw_curves(points, tmp_path / "curves")
    for name in ("run.svg", "run.png", "curves.svg", "curves.png"):
        assert (tmp_path / name).stat().st_size > 5_000


def test_every_target_names_a_row_and_servers_that_exist() -> None:
    rows, servers = {row.key for row in ROWS}, {server.key for server in SERVERS}
    assert {target.row for target in TARGETS} == rows
    assert {target.server for target in TARGETS} <= servers
    assert {bound.server for target in TARGETS for bound in target.bounds} <= servers | {""}


@pytest.mark.parametrize(
    ("target", "is_met"),
    [
        (Target("ranges", (Bound(2000), Bound(0.5, "apache"))), True),  # half of Apache is enough
        (Target("ranges", (Bound(2000),)), False),
        (Target("ranges", (Bound(1, "apache"),), is_ceiling=True), True),
        (Target("ranges", (Bound(900),), is_ceiling=True), False),
    ],
)
def test_verdicts(target: Target, is_met: bool) -> None:
    verdict = judge(target, {("ranges", "helenite"): 1000.0, ("ranges", "apache"): 1500.0})
    assert verdict is not None
    assert verdict.is_met is is_met


def test_without_the_other_server_there_is_no_verdict() -> None:
    assert judge(Target("ranges", (Bound(1, "apache"),)), {("ranges", "helenite"): 1000.0}) is None


def test_wrong_bytes_are_noticed() -> None:
    with pytest.raises(WrongBytesError):
        check_equal(memoryview(b"abd"), b"abc", "a file")
    site = Site("x", Running((LOOPBACK, 1), Path(), list), TINY, Content(1))
    body = b"<D:response><D:href>/d/</D:href></D:response><D:response><D:href>/d/a%20b</D:href>" + (
        b"<D:getcontentlength>3</D:getcontentlength></D:response>"
    )
    reply = Reply(207, b"", memoryview(body))
    site.check_listing(reply, "/d/", {"/d/a b": 3})
    for expected in ({"/d/a b": 4}, {}, {"/d/a b": 3, "/d/c": 3}):
        with pytest.raises(WrongBytesError):
            site.check_listing(reply, "/d/", expected)


def test_listings_of_all_dialects_are_read() -> None:
    for prefix in ("D:", "d:", "ns0:", ""):
        body = f"<{prefix}response><{prefix}href>http://host/a</{prefix}href></{prefix}response>"
        assert parse_listing(body.encode()) == {"/a": 0}


def test_stacks_are_added_up_whatever_the_line() -> None:
    text = "main (a.py:1);send (b.py:10) 3\nmain (a.py:2);send (b.py:11) 4\nmain (a.py:1) 1\n"
    assert parse_stacks(text) == Counter({("main (a.py)", "send (b.py)"): 7, ("main (a.py)",): 1})


def test_of_the_samples_those_count_in_which_a_request_was_answered() -> None:
    start, (waiting,) = ANSWERING["chunkserver"]
    stacks = Counter({("run", start, "write"): 3, ("run", start, f"{waiting} (session.py)"): 5, ("run", "wait"): 7})
    assert answering("chunkserver", stacks) == Counter({(start, "write"): 3})
