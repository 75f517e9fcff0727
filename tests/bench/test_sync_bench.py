"""The comparison of the sync agents runs end to end, and finds out when bytes are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench.sync import rows
from tests.bench.sync.__main__ import main, percentile
from tests.bench.sync.pairs import PROGRAMS
from tests.bench.sync.rows import ROWS, WrongBytesError, wait_for
from tests.bench.sync.tree import main as measure_tree


@pytest.mark.timeout(180)
@pytest.mark.parametrize("program", [program.key for program in PROGRAMS])
def test_all_rows_run(program: str, tmp_path: Path, need: object) -> None:
    if program == "syncthing":
        need("syncthing")  # type: ignore[operator]
    arguments = ["--quick", "--rounds", "1", "--programs", program, "--json", str(tmp_path / "run.json")]
    assert main(arguments) == 0
    medians = json.loads((tmp_path / "run.json").read_text())["medians"]
    assert {row: found.keys() for row, found in medians.items()} == {row.key: {program} for row in ROWS}
    assert all(figure > 0 for found in medians.values() for figure in found.values())


def test_wrong_and_missing_bytes_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "ARRIVES_S", 0.02)
    (tmp_path / "a").write_bytes(b"one")
    wait_for(tmp_path, {"a": b"one"})
    for expected in ({"a": b"two"}, {"b": b""}, {"a": b"one", "b": b""}):
        with pytest.raises(WrongBytesError):
            wait_for(tmp_path, expected)


def test_percentiles_by_nearest_rank() -> None:
    figures = [float(number) for number in range(200, 0, -1)]
    assert (percentile(figures, 50), percentile(figures, 99), percentile([1.0], 99)) == (100.0, 198.0, 1.0)


@pytest.mark.timeout(120)
def test_a_tree_that_both_have_moves_no_content(tmp_path: Path) -> None:
    assert measure_tree(["--quick", "--json", str(tmp_path / "run.json")]) == 0
    found = json.loads((tmp_path / "run.json").read_text())
    assert (found["files"], found["contents_moved"]) == (960, 0)
