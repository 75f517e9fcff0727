"""How a node of the journal is a row of its table: the columns, and the way there and back.

Used by `journal`. A row is as wide as three trees are; where a node is absent from one, the columns of that are NULL.
Pure.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from syncagent.model import (
    AgreedState,
    Kind,
    LocalStamp,
    LocalState,
    Node,
    NodeId,
    Place,
    RemoteStamp,
    RemoteState,
    Tree,
)

COLUMNS = (
    "id, settled, kind,"
    " a_parent, a_name, a_digest, a_inode, a_size, a_mtime, a_ctime, a_executable,"
    " a_resource, a_etag, a_remote_size, a_remote_mtime, a_remote_executable,"
    " l_parent, l_name, l_digest, l_inode, l_size, l_mtime, l_ctime, l_executable,"
    " r_parent, r_name, r_digest, r_resource, r_etag, r_size, r_mtime, r_executable, r_walked"
)
NAMES = [name.strip() for name in COLUMNS.split(",")]
GROUPS = {Tree.ANCESTOR: slice(3, 16), Tree.LOCAL: slice(16, 24), Tree.REMOTE: slice(24, 33)}
"""Which columns hold a node's state in which tree."""


@cache
def update(*, agrees: bool, local: bool, remote: bool) -> str:
    """Only the columns of states that changed are written, with their indexes."""
    trees = [tree for tree, is_other in zip(Tree, (agrees, local, remote), strict=True) if is_other]
    columns = [name for tree in trees for name in NAMES[GROUPS[tree]]]
    return f"UPDATE node SET settled = ?{''.join(f', {name} = ?' for name in columns)} WHERE id = ?"


def to_row(node: Node) -> tuple[object, ...]:
    return (
        node.id,
        node.is_settled,
        node.kind,
        *agreed_row(node.ancestor),
        *local_state_row(node.local),
        *remote_state_row(node.remote),
    )


def agreed_row(state: AgreedState | None) -> tuple[object, ...]:
    if state is None:
        return (None,) * 13
    return (*state.place, state.digest, *_local_row(state.local), *_remote_row(state.remote))


def local_state_row(state: LocalState | None) -> tuple[object, ...]:
    return (None,) * 8 if state is None else (*state.place, state.digest, *_local_row(state.stamp))


def remote_state_row(state: RemoteState | None) -> tuple[object, ...]:
    return (None,) * 9 if state is None else (*state.place, state.digest, *_remote_row(state.stamp), state.walked)


def signed(inode: int) -> int:
    """SQLite's integers are signed; the inodes of some file systems use all 64 bits."""
    return inode - (1 << 64) if inode >= 1 << 63 else inode


def _local_row(stamp: LocalStamp) -> tuple[object, ...]:
    return signed(stamp.inode), stamp.size, stamp.mtime_ns, stamp.ctime_ns, stamp.executable


def _remote_row(stamp: RemoteStamp) -> tuple[object, ...]:
    return stamp.resource, stamp.etag, stamp.size, stamp.mtime_ms, stamp.executable


def from_row(row: tuple[Any, ...]) -> Node:
    kind = Kind(row[2])
    agreed = local = remote = None
    if row[3] is not None:
        agreed = AgreedState(Place(row[3], row[4]), kind, row[5], _local_stamp(row[6:11]), _remote_stamp(row[11:16]))
    if row[16] is not None:
        local = LocalState(Place(row[16], row[17]), kind, _local_stamp(row[19:24]), row[18])
    if row[24] is not None:
        remote = RemoteState(Place(row[24], row[25]), kind, _remote_stamp(row[27:32]), row[26], row[32])
    return Node(NodeId(row[0]), agreed, local, remote)


def _local_stamp(row: tuple[Any, ...]) -> LocalStamp:
    inode, size, mtime_ns, ctime_ns, executable = row
    return LocalStamp(inode + (1 << 64) if inode < 0 else inode, size, mtime_ns, ctime_ns, bool(executable))


def _remote_stamp(row: tuple[Any, ...]) -> RemoteStamp:
    resource, etag, size, mtime_ms, executable = row
    return RemoteStamp(resource, etag, size, mtime_ms, None if executable is None else bool(executable))
