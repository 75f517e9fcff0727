"""Answers what a person asks about a pair: which conflict copies there are, and why an entry is as it is.

Used by `daemon`, on the thread of the pair, between two cycles. Reads the journal, changes nothing.
"""

from __future__ import annotations

from typing import Any

from helenite.core.errors import EntryNotFoundError
from helenite.core.paths import Path, format_path
from syncagent.engine import Engine
from syncagent.journal import Journal
from syncagent.model import ROOT_ID, SIDES, Node, NodeId, Tree, path_of
from syncagent.names import is_conflict_copy
from syncagent.plan import Pair


def find_conflicts(journal: Journal) -> list[str]:
    """The conflict copies in the local folder."""
    nodes = [node for node in journal.conflict_copies() if node.local and is_conflict_copy(node.local.place.name)]
    return sorted(format_path(path_of(journal, Tree.LOCAL, node.id)) for node in nodes)


def explain(engine: Engine, path: Path) -> dict[str, Any]:
    """What is known of an entry on both sides, and what is going to be done with it."""
    journal = engine.journal
    found = {node.id: node for side in SIDES if (node := _find(journal, side, path)) is not None}
    if not found:
        raise EntryNotFoundError(f"{format_path(path)} is on neither side, or is not synced")
    return {"path": format_path(path), "nodes": [_describe(engine, node) for node in found.values()]}


def _describe(engine: Engine, node: Node) -> dict[str, Any]:
    plan = engine.last_plan
    steps = [step for step in plan.steps if not isinstance(step, Pair) and step.node == node.id]
    problems = [problem.reason for problem in plan.problems if problem.node == node.id]
    return {
        "kind": str(node.kind),
        "is_settled": node.is_settled,
        "local": _describe_side(engine.journal, Tree.LOCAL, node),
        "remote": _describe_side(engine.journal, Tree.REMOTE, node),
        "agreed": None if node.ancestor is None else _hex(node.ancestor.digest),
        "steps": [type(step).__name__ for step in steps],
        "problems": problems,
        "sentence": _sentence(node, problems),
    }


def _sentence(node: Node, problems: list[str]) -> str:
    if problems:
        return problems[0]
    if node.is_settled:
        return "both sides are equal"
    match node.only_side:
        case Tree.LOCAL:
            return "it is only here" if node.ancestor is None else "it was deleted on the server"
        case Tree.REMOTE:
            return "it is only on the server" if node.ancestor is None else "it was deleted here"
        case _:
            return "the sides differ, and the next cycle looks at it"


def _describe_side(journal: Journal, side: Tree, node: Node) -> dict[str, Any] | None:
    state = node.local if side is Tree.LOCAL else node.remote
    if state is None:
        return None
    stamp = state.stamp
    return {"path": format_path(path_of(journal, side, node.id)), "size": stamp.size, "digest": _hex(state.digest)}


def _hex(digest: bytes | None) -> str | None:
    return None if digest is None else digest.hex()


def _find(journal: Journal, side: Tree, path: Path) -> Node | None:
    node: NodeId | None = ROOT_ID
    for name in path:
        node = None if node is None else journal.child(side, node, name)
    return None if node in {None, ROOT_ID} or node is None else journal.node(node)
