"""The border of errors, walked over every class that exists."""

from __future__ import annotations

import pytest

from helenite.core import errors
from helenite.core.errors import HeleniteError
from webdav import auth, body, exchange, http1, properties, urls  # noqa: F401 - their error classes are walked too
from webdav.errors import answer, refusal, status_of

METHODS = ("GET", "PUT", "MKCOL", "LOCK", "UNLOCK", "MOVE", "PROPFIND")


def all_errors(cls: type[HeleniteError] = HeleniteError) -> list[type[HeleniteError]]:
    return [cls] + [found for sub in cls.__subclasses__() for found in all_errors(sub)]


@pytest.mark.parametrize("cls", all_errors(), ids=lambda cls: cls.__name__)
def test_every_error_has_an_answer(cls: type[HeleniteError]) -> None:
    for method in METHODS:
        response = answer(cls("a <sentence> for a person\x01"), method, "/a&b")
        assert 400 <= response.status < 600
        content = b"".join(response.body)  # type: ignore[arg-type]
        assert b"sentence" in content
        assert dict(response.headers)["Content-Length"] == str(len(content))


@pytest.mark.parametrize(
    ("error", "method", "status"),
    [
        (errors.EntryNotFoundError, "GET", 404),
        (errors.ParentNotFoundError, "PUT", 409),
        (errors.EntryExistsError, "MKCOL", 405),
        (errors.WrongKindError, "PUT", 405),
        (errors.WrongKindError, "PROPFIND", 409),
        (errors.CycleError, "MOVE", 403),
        (errors.PreconditionFailedError, "MOVE", 412),
        (errors.LockedError, "PUT", 423),
        (errors.LockNotFoundError, "UNLOCK", 409),
        (errors.LockNotFoundError, "LOCK", 412),
        (errors.QuotaExceededError, "PUT", 507),
        (errors.InsufficientStorageError, "PUT", 507),
        (errors.UnavailableError, "GET", 503),
        (errors.DeadlineExceededError, "GET", 503),
        (errors.InvalidPathError, "GET", 400),
        (errors.IncompleteBodyError, "PUT", 400),
        (errors.DigestMismatchError, "PUT", 400),
        (errors.ContentLostError, "GET", 500),
        (urls.ForeignHostError, "MOVE", 502),
        (body.BodyTooLargeError, "PROPFIND", 413),
    ],
)
def test_statuses(error: type[HeleniteError], method: str, status: int) -> None:
    assert status_of(error("x"), method) == status


def test_what_helps_the_client() -> None:
    for error, method in ((errors.UnavailableError("x"), "GET"), (errors.InsufficientStorageError("x"), "PUT")):
        assert int(dict(answer(error, method, "/").headers)["Retry-After"]) > 0
    assert dict(answer(refusal(405, "x"), "PUT", "/").headers)["Allow"]
    locked = b"".join(answer(errors.LockedError("x"), "PUT", "/a b").body)  # type: ignore[arg-type]
    assert b"<D:lock-token-submitted><D:href>/a b</D:href>" in locked
    conflict = b"".join(answer(errors.LockedError("x"), "LOCK", "/a").body)  # type: ignore[arg-type]
    assert b"<D:no-conflicting-lock>" in conflict
