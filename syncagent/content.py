"""Decides what is to happen with the content of one node: nothing, up, down, or a conflict.

Used by `fates` (a change beats a deletion) and `reconcile`. Pure.
"""

from __future__ import annotations

from enum import StrEnum

from syncagent.model import Kind, LocalStamp, LocalState, Node, RemoteStamp, RemoteState


class Change(StrEnum):
    """How one side differs from what was last agreed."""

    NONE = "none"
    ATTRIBUTES = "attributes"  # same content; its time, its executable bit or only its stamp is another
    CONTENT = "content"
    UNKNOWN = "unknown"  # somebody has to read the file


class Verdict(StrEnum):
    """What is to happen with the content of a node that both sides hold."""

    SETTLED = "settled"
    ADOPT = "adopt"
    UPLOAD = "upload"
    DOWNLOAD = "download"
    PUSH_ATTRIBUTES = "push attributes"
    PULL_ATTRIBUTES = "pull attributes"
    CONFLICT = "conflict"
    INSPECT_LOCAL = "inspect local"
    INSPECT_REMOTE = "inspect remote"


def local_change(node: Node) -> Change:
    """How the local content differs from the agreed one."""
    agreed, local = node.ancestor, node.local
    assert local is not None
    if agreed is None:
        return Change.CONTENT
    if local.kind is Kind.DIRECTORY or local.stamp == agreed.local:
        return Change.NONE
    if local.digest is not None and agreed.digest is not None:
        return Change.ATTRIBUTES if local.digest == agreed.digest else Change.CONTENT
    if local.stamp.size != agreed.local.size:
        return Change.CONTENT
    return Change.CONTENT if agreed.digest is None else Change.UNKNOWN


def remote_change(node: Node) -> Change:
    """How the server's content differs from the agreed one. A change shows in the ETag, so nothing is unknown."""
    agreed, remote = node.ancestor, node.remote
    assert remote is not None
    if agreed is None:
        return Change.CONTENT
    if remote.kind is Kind.DIRECTORY or remote.stamp == agreed.remote:
        return Change.NONE
    if remote.digest is not None and remote.digest == agreed.digest:
        return Change.ATTRIBUTES
    same_etag = (remote.stamp.resource, remote.stamp.etag) == (agreed.remote.resource, agreed.remote.etag)
    return Change.ATTRIBUTES if same_etag else Change.CONTENT


_BY_CHANGES: dict[tuple[Change, Change], Verdict] = {
    (Change.NONE, Change.NONE): Verdict.SETTLED,
    (Change.CONTENT, Change.NONE): Verdict.UPLOAD,
    (Change.CONTENT, Change.ATTRIBUTES): Verdict.UPLOAD,
    (Change.NONE, Change.CONTENT): Verdict.DOWNLOAD,
    (Change.ATTRIBUTES, Change.CONTENT): Verdict.DOWNLOAD,
    (Change.UNKNOWN, Change.NONE): Verdict.INSPECT_LOCAL,
    (Change.UNKNOWN, Change.ATTRIBUTES): Verdict.INSPECT_LOCAL,
    (Change.UNKNOWN, Change.CONTENT): Verdict.INSPECT_LOCAL,
}
"""The local change and the server's; the pairs that are missing have to look closer."""


def judge(node: Node) -> Verdict:
    """What is to happen with the content of a node that both sides hold."""
    agreed, local, remote = node.ancestor, node.local, node.remote
    assert local is not None
    assert remote is not None
    if local.kind is Kind.DIRECTORY:
        same = agreed is not None and (local.stamp, remote.stamp) == (agreed.local, agreed.remote)
        return Verdict.SETTLED if same else Verdict.ADOPT
    changes = (local_change(node), remote_change(node))
    if changes == (Change.CONTENT, Change.CONTENT):
        return _compare(local, remote)
    return _BY_CHANGES.get(changes) or _judge_attributes(node)


def _compare(local: LocalState, remote: RemoteState) -> Verdict:
    """Both sides have content that the other does not know: the same by chance, or a conflict."""
    if local.stamp.size != remote.stamp.size:
        return Verdict.CONFLICT
    if local.digest is None:
        return Verdict.INSPECT_LOCAL
    if remote.digest is None:
        return Verdict.INSPECT_REMOTE
    return Verdict.ADOPT if local.digest == remote.digest else Verdict.CONFLICT


def _judge_attributes(node: Node) -> Verdict:
    """The content is the same on both sides; at least one stamp is another than when they agreed."""
    agreed, local, remote = node.ancestor, node.local, node.remote
    assert agreed is not None
    assert local is not None
    assert remote is not None
    if attributes_agree(local.stamp, remote.stamp):
        return Verdict.ADOPT
    if (remote.stamp.mtime_ms, remote.stamp.executable) != (agreed.remote.mtime_ms, agreed.remote.executable):
        return Verdict.PULL_ATTRIBUTES  # the server's change wins when both sides made one
    if (local.stamp.mtime_ns, local.stamp.executable) != (agreed.local.mtime_ns, agreed.local.executable):
        return Verdict.PUSH_ATTRIBUTES
    return Verdict.ADOPT


def attributes_agree(local: LocalStamp, remote: RemoteStamp) -> bool:
    """Whether time (to the server's millisecond) and executable bit are equal, as far as the server keeps them."""
    same_time = remote.mtime_ms is None or remote.mtime_ms == local.mtime_ns // 1_000_000
    return same_time and remote.executable in {None, local.executable}
