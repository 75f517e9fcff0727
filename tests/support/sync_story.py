"""Named cases for the planner, told in paths: what was agreed, what each side did, what comes out."""

from __future__ import annotations

from dataclasses import replace

from helenite.core.paths import parse_path
from syncagent.fates import Customs
from syncagent.model import ROOT_ID, Kind, NodeId, Place, Tree
from syncagent.plan import Plan, Step, Write
from syncagent.reconcile import reconcile
from tests.support.sync_forest import Forest, digest_of

COPY = "(conflicted copy 2026-11-24 anna)"


class Story:
    """Two sides that agree, and then do not. A path that ends with `/` is a directory; its parents must exist."""

    def __init__(self) -> None:
        self.forest = Forest()
        self.customs = Customs(agent="anna", copy_stamp="2026-11-24 anna")
        self.steps: list[Step] = []

    def agreed(self, *paths: str) -> Story:
        """Each file holds its own path."""
        for path in paths:
            place, kind = self._place(Tree.LOCAL, path)
            self.forest.new_agreed(place, kind, path)
        return self

    def add(self, side: Tree, path: str, content: str = "") -> Story:
        place, kind = self._place(side, path)
        (self.forest.new_local if side is Tree.LOCAL else self.forest.new_remote)(place, kind, content)
        return self

    def edit(self, side: Tree, path: str, content: str) -> Story:
        self.forest.edit(side, self.find(side, path), content)
        return self

    def move(self, side: Tree, path: str, to: str) -> Story:
        self.forest.move(side, self.find(side, path), self._place(side, to)[0])
        return self

    def remove(self, side: Tree, path: str) -> Story:
        self.forest.remove(side, self.find(side, path))
        return self

    def swap(self, side: Tree, one: str, other: str) -> Story:
        first, second = self.find(side, one), self.find(side, other)
        self.forest.move(side, first, Place(ROOT_ID, "passing"))
        self.forest.move(side, second, self._place(side, one)[0])
        self.forest.move(side, first, self._place(side, other)[0])
        return self

    def plan(self) -> Plan:
        return reconcile(self.forest, self.forest.unsettled(), self.customs)

    def sync(self, rounds_max: int = 12) -> dict[str, str | None]:
        """Carry plans out until nothing is left; what both sides then hold, path -> content (None: a directory)."""
        for _ in range(rounds_max):
            plan = self.plan()
            if plan.is_empty:
                break
            for step in plan.steps:
                self.forest.apply(step)
                self.steps.append(step)
        assert self.plan().is_empty
        result = self.side(Tree.LOCAL)
        assert result == self.side(Tree.REMOTE)
        assert not self.forest.unsettled()
        return result

    def side(self, side: Tree) -> dict[str, str | None]:
        """What one side holds; contents are told apart by what was ever written in this story."""
        listing = self.forest.listing(side)
        return {
            "/".join(path) + ("/" if kind is Kind.DIRECTORY else ""): None if digest is None else digest.hex()
            for path, (kind, digest) in listing.items()
        }

    def writes(self, *kinds: type[Step]) -> list[Step]:
        """The steps so far that changed one of the sides, or those of some kinds."""
        return [step for step in self.steps if isinstance(step, kinds or Write)]

    def hold(self, side: Tree, path: str) -> Story:
        self.customs = replace(self.customs, held=self.customs.held | {self.find(side, path)})
        return self

    def find(self, side: Tree, path: str) -> NodeId:
        node = ROOT_ID
        for name in parse_path(f"/{path}"):
            found = self.forest.child(side, node, name)
            assert found is not None, f"{path} is not on the {side} side"
            node = found
        return node

    def _place(self, side: Tree, path: str) -> tuple[Place, Kind]:
        *above, name = parse_path(f"/{path}")
        return Place(self.find(side, "/".join(above)), name), Kind.DIRECTORY if path.endswith("/") else Kind.FILE


def result(files: dict[str, str], *directories: str) -> dict[str, str | None]:
    """What `Story.sync` is expected to return: path -> content, and directories."""
    return {path: digest_of(text).hex() for path, text in files.items()} | dict.fromkeys(directories)
