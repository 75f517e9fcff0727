"""The one error hierarchy of the project.

Every part raises these; `core.wire` and `webdav.errors` translate them at their border, so that a client
raises the very class that a server raised. Each class has a stable `code` (its name on the wire) and knows
whether repeating the same request may help. Pure: no I/O, no clock.
"""

from __future__ import annotations

from typing import ClassVar


class HeleniteError(Exception):
    """Base of everything that Helenite raises on purpose; `str(error)` is a sentence for a person."""

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False


class InvalidRequestError(HeleniteError):
    """The request makes no sense, whatever the state of the cluster."""

    code = "invalid_request"


class InvalidPathError(InvalidRequestError):
    """A path or name that can never exist (see `core.paths`)."""

    code = "invalid_path"


class IncompleteBodyError(InvalidRequestError):
    """Fewer or more bytes arrived than were announced."""

    code = "incomplete_body"


class DigestMismatchError(InvalidRequestError):
    """The content is not what the sender's checksum says."""

    code = "digest_mismatch"


class EntryNotFoundError(HeleniteError):
    """No entry has this path."""

    code = "entry_not_found"


class EntryExistsError(HeleniteError):
    """The target exists and must not be replaced."""

    code = "entry_exists"


class ParentNotFoundError(HeleniteError):
    """An ancestor of the target is missing or is a file (RFC 4918: 409 Conflict)."""

    code = "parent_not_found"


class WrongKindError(HeleniteError):
    """A file where a directory is needed, or a directory where a file is needed."""

    code = "wrong_kind"


class CycleError(HeleniteError):
    """The target is the source or lies inside it."""

    code = "cycle"


class PreconditionFailedError(HeleniteError):
    """The entry is not in the state that the caller demanded."""

    code = "precondition_failed"


class LockedError(HeleniteError):
    """A lock whose token was not submitted protects the entry, or a conflicting lock exists (423)."""

    code = "locked"


class LockNotFoundError(HeleniteError):
    """The token names no lock that covers this path."""

    code = "lock_not_found"


class PermissionDeniedError(HeleniteError):
    """This principal may not do this."""

    code = "permission_denied"


class QuotaExceededError(HeleniteError):
    """A quota or a named maximum would be exceeded."""

    code = "quota_exceeded"


class InsufficientStorageError(HeleniteError):
    """Too few chunkservers with room are alive for the promised number of replicas (507)."""

    code = "insufficient_storage"
    retryable = True


class UnavailableError(HeleniteError):
    """A part of the cluster does not answer at the moment (503)."""

    code = "unavailable"
    retryable = True


class DeadlineExceededError(UnavailableError):
    """The request's deadline passed before an answer came."""

    code = "deadline_exceeded"


class ReplicaUnreadableError(UnavailableError):
    """The disk does not give a replica's bytes now. Another replica may; this one is not condemned by it."""

    code = "replica_unreadable"


class StaleEpochError(HeleniteError):
    """Another master has become leader; this one must stop its background loops."""

    code = "stale_epoch"


class SequenceExpiredError(HeleniteError):
    """The feed no longer reaches back to this sequence; scan again (RFC 6578: valid-sync-token)."""

    code = "sequence_expired"


class HistoryLostError(SequenceExpiredError):
    """Who asks has read changes that are lost since: the metadata was restored from an older copy, or failed over."""

    code = "history_lost"


class UploadExpiredError(HeleniteError):
    """The chunks of a commit were allocated too long ago; they may be gone. The content must be sent again (408)."""

    code = "upload_expired"


class ChunkNotFoundError(HeleniteError):
    """The chunkserver does not hold this chunk."""

    code = "chunk_not_found"


class ChunkExistsError(HeleniteError):
    """The chunk is sealed already; chunks are immutable."""

    code = "chunk_exists"


class ChunkCorruptError(HeleniteError):
    """A replica's bytes do not match its checksums."""

    code = "chunk_corrupt"


class BadCapabilityError(HeleniteError):
    """The capability does not belong to this chunk in this cluster."""

    code = "bad_capability"


class ForeignClusterError(HeleniteError):
    """Two parts belong to different clusters, or a data directory is in use twice."""

    code = "foreign_cluster"


class DuplicateServerError(ForeignClusterError):
    """Two processes run with one chunkserver's identity: one of them has a copy of the other's data directory."""

    code = "duplicate_server"


class ProtocolError(HeleniteError):
    """The peer sent something that this version does not understand."""

    code = "protocol"


class ContentLostError(HeleniteError):
    """No readable replica of a chunk is left; reading must break off instead of lying."""

    code = "content_lost"


class ConfigurationError(HeleniteError):
    """A setting is missing or wrong; the message says which and what to do."""

    code = "configuration"


def _subclasses(cls: type[HeleniteError]) -> list[type[HeleniteError]]:
    return [cls] + [found for sub in cls.__subclasses__() for found in _subclasses(sub)]


ERROR_BY_CODE: dict[str, type[HeleniteError]] = {cls.code: cls for cls in _subclasses(HeleniteError)}


def pack_error(error: HeleniteError) -> bytes:
    """`code NUL sentence`, as errors travel on the data port and the call port."""
    return f"{error.code}\0{error}".encode()


def unpack_error(packed: bytes) -> HeleniteError:
    """The error that the other side raised."""
    code, _, sentence = packed.decode(errors="replace").partition("\0")
    return error_from_code(code, sentence)


def error_from_code(code: str, message: str) -> HeleniteError:
    """Rebuild the error that the other side raised; an unknown code becomes the base class."""
    return ERROR_BY_CODE.get(code, HeleniteError)(message)
