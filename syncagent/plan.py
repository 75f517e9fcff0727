"""What a sync is going to do: steps, in batches.

`reconcile` makes a Plan, `safety` looks at it, `executor` carries it out, the command line shows it. Batches run one
after the other; the steps of one batch may run in any order, and transfers also at the same time. A step names nodes,
never paths, so that it still means the same when another step failed.

Every step is conditional. Its precondition is what the journal holds of the node at that moment, which is what was
observed when the plan was made, as changed by the plan's own earlier steps: the ETag and the absence of the target on
the server, the stamp and the absence of the target on the local disk. A step whose precondition fails does nothing; the
next cycle looks again. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from syncagent.model import NodeId, Place, Tree


@dataclass(frozen=True, slots=True)
class Pair:
    """Two nodes that appeared under one name on the two sides are one: the second's state joins the first."""

    local: NodeId
    remote: NodeId


@dataclass(frozen=True, slots=True)
class Rescue:
    """One side moved the node, the other deleted it: it and all beneath that the other side lacks count as new."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Inspect:
    """Learn the digest of a node's content on one side, without which nothing can be decided."""

    node: NodeId
    side: Tree


@dataclass(frozen=True, slots=True)
class Adopt:
    """Both sides hold the same: note it as agreed."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class Forget:
    """The node is gone on both sides."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """Create on one side the directory that exists on the other."""

    side: Tree
    node: NodeId
    place: Place


@dataclass(frozen=True, slots=True)
class Move:
    """Give a node its new place on one side; of a directory this moves everything beneath."""

    side: Tree
    node: NodeId
    place: Place


@dataclass(frozen=True, slots=True)
class SetAside:
    """Both sides changed the content: the local file becomes a new node with a conflict name, in its directory."""

    node: NodeId
    name: str


@dataclass(frozen=True, slots=True)
class Upload:
    """Bring the local content to the server, as a new file at `place`; None: over the content that the server has."""

    node: NodeId
    place: Place | None


@dataclass(frozen=True, slots=True)
class Download:
    """Bring the server's content to the local disk, as a new file at `place`; None: over the content that is there.

    A download that is to make a new file fails when the node has a local file after all: it may be one side of a
    conflict whose SetAside failed.
    """

    node: NodeId
    place: Place | None


@dataclass(frozen=True, slots=True)
class SetAttributes:
    """Carry time of modification and executable bit to `side`; the content is the same already."""

    side: Tree
    node: NodeId


@dataclass(frozen=True, slots=True)
class Delete:
    """Move a node with everything beneath to the trash of `side`."""

    side: Tree
    node: NodeId


Note = Pair | Rescue | Inspect | Adopt | Forget
"""Steps that change nothing but the journal."""
Transfer = Upload | Download
Direct = MakeDirectory | Move | SetAside | SetAttributes | Delete
Write = Direct | Transfer
Step = Note | Write
Batch = tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a node cannot be brought to `side` at present; shown to the person, not an error of the agent."""

    node: NodeId
    side: Tree
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What one cycle does. Empty: the sides agree as far as they can."""

    batches: tuple[Batch, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def steps(self) -> Iterator[Step]:
        return (step for batch in self.batches for step in batch)

    @property
    def is_empty(self) -> bool:
        return not self.batches
