"""What leaves the local trash, and when: with a clock that only the test moves."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from syncagent.trash import DAY_MS, Keeping, Trashed, choose_expired, empty_trash

NOW_MS = 100 * DAY_MS


def item(days_ago: float, size: int = 1, name: str = "") -> Trashed:
    return Trashed(name or str(days_ago), NOW_MS - int(days_ago * DAY_MS), size)


def test_what_is_old_goes() -> None:
    found = choose_expired([item(0), item(29.9), item(30.1), item(99)], NOW_MS, Keeping(30 * DAY_MS, 1_000))
    assert [gone.name for gone in found] == ["99", "30.1"]


def test_of_too_much_the_oldest_goes() -> None:
    trashed = [item(2, 40), item(3, 40), item(4, 40)]
    assert choose_expired(trashed, NOW_MS, Keeping(30 * DAY_MS, 100)) == [trashed[2]]
    assert choose_expired(trashed, NOW_MS, Keeping(30 * DAY_MS, 120)) == []


def test_todays_deletions_stay_unless_the_disk_is_short() -> None:
    trashed = [item(0.1, 500), item(0.5, 500)]
    assert choose_expired(trashed, NOW_MS, Keeping(30 * DAY_MS, 100)) == []
    assert choose_expired(trashed, NOW_MS, Keeping(30 * DAY_MS, 500, is_short=True)) == [trashed[1]]


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 1000))),
    st.integers(1, 50),
    st.integers(0, 5000),
    st.booleans(),
)
def test_what_stays_is_young_and_not_too_much(
    items: list[tuple[int, int]], days: int, bytes_max: int, is_short: bool
) -> None:
    trashed = [item(age, size, f"{number}") for number, (age, size) in enumerate(items)]
    gone = choose_expired(trashed, NOW_MS, Keeping(days * DAY_MS, bytes_max, is_short))
    kept = [one for one in trashed if one not in gone]
    assert all(NOW_MS - one.at_ms <= days * DAY_MS for one in kept)
    old = [one for one in kept if is_short or NOW_MS - one.at_ms > DAY_MS]
    assert not old or sum(one.size_bytes for one in kept) <= bytes_max


def holder(trash: Path, at_ms: int, number: int, size: int = 10) -> Path:
    made = trash / f"{at_ms}-{number}"
    made.mkdir(parents=True)
    (made / "file").write_bytes(b"x" * size)
    return made


def test_emptying(tmp_path: Path) -> None:
    assert empty_trash(tmp_path / "none", NOW_MS, 30, None) == []
    trash = tmp_path / "trash"
    now_ms = 1_800_000_000_000
    old = holder(trash, now_ms - 31 * DAY_MS, 0)
    (old / "tree" / "closed").mkdir(parents=True)
    (old / "tree" / "closed" / "f").write_bytes(b"x")
    (old / "tree" / "closed").chmod(0o555)
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o500)
    (old / "tree" / "link").symlink_to(outside)
    young = holder(trash, now_ms - 29 * DAY_MS, 1)
    mine = trash / "put here by a person"
    mine.mkdir()
    os.utime(mine, (0, 0))
    assert [gone.name for gone in empty_trash(trash, now_ms, 30, None)] == [old.name]
    assert sorted(path.name for path in trash.iterdir()) == sorted([young.name, mine.name])
    assert outside.stat().st_mode & 0o777 == 0o500
    assert empty_trash(trash, now_ms + 2 * DAY_MS, 30, None)
    assert not young.exists()
    assert mine.exists()


def test_emptying_by_size(tmp_path: Path) -> None:
    now_ms = 1_800_000_000_000
    for number in range(5):
        holder(tmp_path, now_ms - (number + 2) * DAY_MS, number, 1_000)
    gone = empty_trash(tmp_path, now_ms, 30, 2_500)
    assert [one.name.rpartition("-")[2] for one in gone] == ["4", "3", "2"]
