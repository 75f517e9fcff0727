from __future__ import annotations

import base64
import hashlib
import zlib

import pytest

from helenite.core.errors import DigestMismatchError, InvalidRequestError
from webdav.digests import Digests

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
