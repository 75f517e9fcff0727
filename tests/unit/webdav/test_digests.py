from __future__ import annotations

import base64
import hashlib
import zlib

import pytest

from helenite.core.errors import DigestMismatchError, InvalidRequestError
from webdav.digests import Digests, wants_sha256

CONTENT = b"some content"
MD5 = base64.b64encode(hashlib.md5(CONTENT).digest()).decode()
SHA256 = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
SHA512 = base64.b64encode(hashlib.sha512(CONTENT).digest()).decode()
ADLER = f"{zlib.adler32(CONTENT):08x}"


@pytest.mark.parametrize(
    "sent",
    [
        (None, None, None),
        (MD5, None, None),
        (None, f"sha-256=:{SHA256}:", None),
        (None, f"md5=:{MD5}:, sha-512=:{SHA512}:;q=1", None),
        (None, "unixsum=:AAAA:", None),
        (None, None, f"SHA1:{hashlib.sha1(CONTENT).hexdigest()} MD5:{hashlib.md5(CONTENT).hexdigest()}"),
        (None, None, f"ADLER32:{ADLER}"),
        (None, None, "CRC99:zz"),
    ],
)
def test_right_digests(sent: tuple[str | None, str | None, str | None]) -> None:
    right = Digests(*sent)
    right.update(CONTENT[:5])
    right.update(CONTENT[5:])
    right.verify()


@pytest.mark.parametrize(
    ("sent", "is_known"),
    [
        ((None, f"sha-256=:{SHA256}:", None), True),
        ((None, f"md5=:{MD5}:", f"SHA256:{hashlib.sha256(CONTENT).hexdigest()}"), True),
        ((MD5, f"sha-512=:{SHA512}:", None), False),
        ((None, None, None), False),
    ],
)
def test_a_sha_256_that_held_is_known(sent: tuple[str | None, str | None, str | None], is_known: bool) -> None:
    right = Digests(*sent)
    right.update(CONTENT)
    right.verify()
    assert right.sha256 == (hashlib.sha256(CONTENT).digest() if is_known else b"")


@pytest.mark.parametrize(
    ("header", "is_wanted"),
    [
        ("sha-256=10", True),
        ("sha-512=3, sha-256=1;x=y", True),
        ("sha-256", True),
        ("sha-256=0", False),
        ("sha-512=10", False),
        ("", False),
        (None, False),
    ],
)
def test_who_wants_a_digest(header: str | None, is_wanted: bool) -> None:
    assert wants_sha256(header) is is_wanted


@pytest.mark.parametrize(
    "sent", [(MD5, None, None), (None, f"sha-256=:{SHA256}:", None), (None, None, f"ADLER32:{ADLER}")]
)
def test_wrong_content(sent: tuple[str | None, str | None, str | None]) -> None:
    wrong = Digests(*sent)
    wrong.update(CONTENT + b"!")
    with pytest.raises(DigestMismatchError):
        wrong.verify()


@pytest.mark.parametrize(
    "sent",
    [
        ("?", None, None),
        ("\xff", None, None),
        (None, "sha-256=abc", None),
        (None, None, "SHA1"),
        (None, None, "SHA1:xx"),
    ],
)
def test_malformed(sent: tuple[str | None, str | None, str | None]) -> None:
    with pytest.raises(InvalidRequestError):
        Digests(*sent)
