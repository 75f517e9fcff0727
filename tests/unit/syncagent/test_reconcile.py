"""What the planner does, case by case; the random trees of tests/model show that there is no case without an answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from syncagent.model import SIDES, Tree
from syncagent.names import NameRules, aside_name
from syncagent.plan import Delete, Download, MakeDirectory, Move, SetAside, Upload
from tests.support.sync_story import COPY, Story, result

L, R = Tree.LOCAL, Tree.REMOTE
both_ways = pytest.mark.parametrize(("here", "there"), [(L, R), (R, L)], ids=["local", "remote"])


def test_nothing_to_do() -> None:
    story = Story().agreed("a", "d/", "d/b")
    assert story.plan().is_empty
    story.sync()
    assert not story.steps


@both_ways
def test_a_new_tree_comes_to_the_other_side(here: Tree, there: Tree) -> None:
    story = Story().add(here, "d/").add(here, "d/e/").add(here, "d/e/f", "new").add(here, "g", "")
    assert story.sync() == result({"d/e/f": "new", "g": ""}, "d/", "d/e/")
    assert len(story.writes()) == 4


@both_ways
def test_an_edit_comes_to_the_other_side(here: Tree, there: Tree) -> None:
    story = Story().agreed("a").edit(here, "a", "new")
    assert story.sync() == result({"a": "new"})
    assert len(story.writes()) == 1


@both_ways
def test_a_deleted_directory_is_one_deletion(here: Tree, there: Tree) -> None:
    story = Story().agreed("d/", "d/a", "d/e/", "d/e/b", "c").remove(here, "d")
    node = story.find(there, "d")
    assert story.sync() == result({"c": "c"})
    assert story.writes() == [Delete(there, node)]


@both_ways
def test_a_moved_directory_is_one_move(here: Tree, there: Tree) -> None:
    story = Story().agreed("d/", "d/a", "d/e/", "d/e/b").move(here, "d", "x")
    node = story.find(there, "d")
    assert story.sync() == result({"x/a": "d/a", "x/e/b": "d/e/b"}, "x/", "x/e/")
    assert [(type(step), step.node) for step in story.writes(Move)] == [(Move, node)]
    assert len(story.writes()) == 1


@both_ways
def test_deleted_on_both_sides(here: Tree, there: Tree) -> None:
    assert Story().agreed("a").remove(here, "a").remove(there, "a").sync() == {}


def test_both_edited_the_servers_keeps_the_name() -> None:
    story = Story().agreed("a.txt").edit(L, "a.txt", "mine").edit(R, "a.txt", "theirs")
    assert story.sync() == result({"a.txt": "theirs", f"a {COPY}.txt": "mine"})
    assert [type(step) for step in story.writes()] == [SetAside, Download, Upload]


def test_both_edited_to_the_same() -> None:
    story = Story().agreed("a").edit(L, "a", "same").edit(R, "a", "same")
    assert story.sync() == result({"a": "same"})
    assert not story.writes()


def test_both_created_the_same() -> None:
    story = Story()
    for side in SIDES:
        story.add(side, "d/").add(side, "d/a", "same")
    assert story.sync() == result({"d/a": "same"}, "d/")
    assert not story.writes()


def test_both_created_different_files() -> None:
    story = Story().add(L, "a", "mine").add(R, "a", "theirs")
    assert story.sync() == result({"a": "theirs", f"a {COPY}": "mine"})


def test_first_sync_of_two_folders_is_their_union() -> None:
    story = Story()
    story.add(L, "d/").add(L, "d/mine", "1").add(L, "d/both", "2").add(L, "d/differs", "3")
    story.add(R, "d/").add(R, "d/theirs", "4").add(R, "d/both", "2").add(R, "d/differs", "5")
    files = {"d/mine": "1", "d/both": "2", "d/theirs": "4", "d/differs": "5", f"d/differs {COPY}": "3"}
    assert story.sync() == result(files, "d/")


def test_a_conflict_on_a_conflict_copy_makes_no_copy_of_a_copy() -> None:
    name = f"a {COPY}.txt"
    story = Story().agreed(name).edit(L, name, "mine").edit(R, name, "theirs")
    assert story.sync() == result({name: "theirs", "a (conflicted copy 2026-11-24 anna 2).txt": "mine"})


def test_two_conflicts_on_one_name_get_two_copies() -> None:
    story = Story().agreed("a").edit(L, "a", "1").edit(R, "a", "2")
    story.sync()
    story.edit(L, "a", "3").edit(R, "a", "4")
    files = {"a": "4", f"a {COPY}": "1", "a (conflicted copy 2026-11-24 anna 2)": "3"}
    assert story.sync() == result(files)


@both_ways
def test_an_edit_beats_a_deletion(here: Tree, there: Tree) -> None:
    story = Story().agreed("a").edit(here, "a", "new").remove(there, "a")
    assert story.sync() == result({"a": "new"})


@both_ways
def test_a_new_file_keeps_only_its_own_directory(here: Tree, there: Tree) -> None:
    story = Story().agreed("d/", "d/a", "d/e/", "d/e/b", "d/f/").add(here, "d/e/new", "n").remove(there, "d")
    assert story.sync() == result({"d/e/new": "n"}, "d/", "d/e/")


@both_ways
def test_a_rename_and_an_edit_merge(here: Tree, there: Tree) -> None:
    story = Story().agreed("a").move(here, "a", "b").edit(there, "a", "new")
    assert story.sync() == result({"b": "new"})


@both_ways
def test_a_renamed_directory_and_a_new_file_in_it_merge(here: Tree, there: Tree) -> None:
    story = Story().agreed("d/", "d/a").move(here, "d", "e").add(there, "d/new", "n")
    assert story.sync() == result({"e/a": "d/a", "e/new": "n"}, "e/")


def test_of_two_moves_the_servers_wins() -> None:
    assert Story().agreed("a").move(L, "a", "b").move(R, "a", "c").sync() == result({"c": "a"})


def test_the_same_move_on_both_sides() -> None:
    story = Story().agreed("a").move(L, "a", "b").move(R, "a", "b")
    assert story.sync() == result({"b": "a"})
    assert not story.writes()


def test_moved_into_one_another() -> None:
    story = Story().agreed("a/", "a/x", "b/", "b/y").move(L, "a", "b/a").move(R, "b", "a/b")
    assert story.sync() == result({"a/x": "a/x", "a/b/y": "b/y"}, "a/", "a/b/")


@both_ways
def test_a_turned_around_hierarchy(here: Tree, there: Tree) -> None:
    story = Story().agreed("a/", "a/b/", "a/b/x").move(here, "a/b", "b").move(here, "a", "b/a")
    assert story.sync() == result({"b/x": "a/b/x"}, "b/", "b/a/")
    assert [type(step) for step in story.writes()] == [Move, Move]


@both_ways
def test_exchanged_names(here: Tree, there: Tree) -> None:
    story = Story().agreed("a", "b").swap(here, "a", "b")
    assert story.sync() == result({"a": "b", "b": "a"})
    assert [type(step) for step in story.writes()] == [Move, Move, Move]


@both_ways
def test_a_chain_of_renames_needs_no_detour(here: Tree, there: Tree) -> None:
    count = 100
    story = Story().agreed(*(f"f{number}" for number in range(count)))
    for number in reversed(range(count)):
        story.move(here, f"f{number}", f"f{number + 1}")
    assert story.sync() == result({f"f{number + 1}": f"f{number}" for number in range(count)})
    assert len(story.writes(Move)) <= count + count // 32 + 1


@both_ways
def test_a_file_becomes_a_directory(here: Tree, there: Tree) -> None:
    story = Story().agreed("a").remove(here, "a").add(here, "a/").add(here, "a/x", "new")
    assert story.sync() == result({"a/x": "new"}, "a/")
    assert isinstance(story.writes()[-1], Delete)


@both_ways
def test_a_directory_becomes_the_file_that_was_in_it(here: Tree, there: Tree) -> None:
    story = Story().agreed("d/", "d/f", "d/g")
    story.move(here, "d/f", "f").remove(here, "d").move(here, "f", "d")
    assert story.sync() == result({"d": "d/f"})


def test_file_and_folder_of_one_name() -> None:
    story = Story().add(L, "a", "file").add(R, "a/").add(R, "a/x", "x")
    assert story.sync() == result({"a/x": "x", f"a {COPY}": "file"}, "a/")
    story = Story().add(R, "a", "file").add(L, "a/").add(L, "a/x", "x")
    assert story.sync() == result({"a": "file", f"a {COPY}/x": "x"}, f"a {COPY}/")


def test_a_directory_becomes_a_file_while_the_other_side_adds_to_it() -> None:
    story = Story().agreed("d/", "d/a").remove(L, "d").add(L, "d", "file").add(R, "d/new", "n")
    assert story.sync() == result({"d/new": "n", f"d {COPY}": "file"}, "d/")


def test_two_moves_to_one_name() -> None:
    story = Story().agreed("a", "b").move(L, "a", "c").move(R, "b", "c")
    assert story.sync() == result({"c": "b", f"c {COPY}": "a"})


@both_ways
def test_moved_out_of_a_directory_that_the_other_side_deletes(here: Tree, there: Tree) -> None:
    story = Story().agreed("d/", "d/sub/", "d/sub/a", "d/b").move(here, "d/sub", "sub").remove(there, "d")
    assert story.sync() == result({"sub/a": "d/sub/a"}, "sub/")


@both_ways
def test_moved_into_a_directory_that_the_other_side_deletes(here: Tree, there: Tree) -> None:
    story = Story().agreed("d/", "d/b", "a").move(here, "a", "d/a").remove(there, "d")
    assert story.sync() == result({"d/a": "a"}, "d/")


@both_ways
def test_renamed_then_a_new_one_of_the_old_name(here: Tree, there: Tree) -> None:
    story = Story().agreed("a/", "a/x").move(here, "a", "b").add(here, "a/")
    assert story.sync() == result({"b/x": "a/x"}, "a/", "b/")
    assert [type(step) for step in story.writes()] == [Move, MakeDirectory]


def test_moved_and_edited_by_both() -> None:
    story = Story().agreed("a", "d/").move(R, "a", "d/a").edit(R, "d/a", "theirs").edit(L, "a", "mine")
    assert story.sync() == result({"d/a": "theirs", f"d/a {COPY}": "mine"}, "d/")


def test_a_long_name_in_conflict() -> None:
    name = "n" * 251 + ".txt"
    story = Story().agreed(name).edit(L, name, "mine").edit(R, name, "theirs")
    names = story.sync()
    assert len(names) == 2
    assert all(len(found.encode()) <= 255 for found in names)


def test_names_that_differ_in_case_are_two_names_on_linux() -> None:
    story = Story().add(L, "Foo", "1").add(R, "foo", "2")
    assert story.sync() == result({"Foo": "1", "foo": "2"})


def test_names_that_differ_in_case_clash_where_the_disk_says_so() -> None:
    story = Story().add(L, "Foo", "1").add(R, "foo", "2")
    story.customs = story.customs.__class__("anna", "2026-11-24 anna", NameRules(ignores_case=True))
    assert story.sync() == result({"Foo (case conflict 2026-11-24 anna)": "1", "foo": "2"})


def test_two_names_on_the_server_that_the_disk_takes_for_one() -> None:
    story = Story().add(R, "Foo", "1").add(R, "foo", "2")
    story.customs = story.customs.__class__("anna", "2026-11-24 anna", NameRules(ignores_case=True))
    plan = story.plan()
    assert len([step for step in plan.steps if isinstance(step, Download)]) == 1
    assert [problem.node for problem in plan.problems] == [story.find(R, "foo")]


def test_a_rename_of_case_only_is_a_move() -> None:
    story = Story().agreed("foo").move(L, "foo", "Foo")
    story.customs = story.customs.__class__("anna", "2026-11-24 anna", NameRules(ignores_case=True))
    assert story.sync() == result({"Foo": "foo"})
    assert [type(step) for step in story.writes()] == [Move]


def test_a_name_that_windows_refuses_stays_on_the_server() -> None:
    story = Story().agreed("x").add(R, "con/").add(R, "con/a", "1").add(R, "b", "2")
    story.customs = story.customs.__class__("anna", "2026-11-24 anna", NameRules(windows=True))
    plan = story.plan()
    assert [type(step) for step in plan.steps] == [Download]
    assert [problem.node for problem in plan.problems] == [story.find(R, "con")]


def test_what_is_held_waits_and_nothing_else_does() -> None:
    story = Story().agreed("a", "b").edit(L, "a", "1").edit(L, "b", "2").hold(L, "a")
    assert list(story.plan().steps) == [Upload(story.find(L, "b"), None)]


def test_who_wants_a_name_waits_for_one_that_is_held() -> None:
    """It may turn out to have left that name: what became of a request is not known yet."""
    story = Story().agreed("x/").move(L, "x", "y").add(L, "x/")
    left = story.forest.nodes[story.find(R, "x")]
    story.forest.put(replace(left, ancestor=None))
    assert story.hold(L, "y").plan().is_empty
    story.forest.put(left)
    story.customs = replace(story.customs, held=frozenset())
    assert story.sync() == result({}, "x/", "y/")


def test_a_held_file_keeps_its_directory_undecided() -> None:
    story = Story().agreed("d/", "d/a", "d/b").remove(R, "d").hold(L, "d/a")
    assert list(story.plan().steps) == [Delete(L, story.find(L, "d/b"))]


def test_what_another_agent_has_moved_aside_is_left_alone() -> None:
    story = Story().agreed("a").move(R, "a", aside_name("bert", 1))
    assert story.plan().is_empty


def test_what_this_agent_had_moved_aside_goes_back() -> None:
    story = Story().agreed("a").move(R, "a", aside_name("anna", 1))
    assert story.sync() == result({"a": "a"})


def test_deletions_come_last() -> None:
    story = Story().agreed("a", "b").remove(L, "a").edit(L, "b", "new").add(L, "c", "new").move(R, "b", "d")
    batches = story.plan().batches
    assert all(isinstance(step, Delete) for step in batches[-1])
    assert not [step for batch in batches[:-1] for step in batch if isinstance(step, Delete)]
