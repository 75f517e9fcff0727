"""Tar streams: what tarfile writes is read, what we write tarfile reads, and nothing broken is taken for whole."""

from __future__ import annotations

import io
import random
import tarfile

import pytest

from webdav.tars import (
    BLOCK_BYTES,
    END,
    EXTENDED_BYTES_MAX,
    BrokenTarError,
    Member,
    TarReader,
    format_header,
    padding,
)

NAMES = ["a", "d/b.txt", "n" * 99 + "/" + "m" * 90, "x/" * 60 + "y" * 200, "grüße/日本", "a b&c"]
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def pack(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def a_file(name: str, content: bytes = b"x", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def unpack(data: bytes, *, skip: bool = False, step: int = 1 << 20) -> list[tuple[Member, bytes]]:
    stream = io.BytesIO(data)
    reader = TarReader(lambda size: stream.read(min(size, step)))
    return [(member, b"" if skip else b"".join(reader.content())) for member in reader]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("step", [1, 700, 1 << 20])
def test_what_tarfile_writes(form: int, step: int) -> None:
    names = NAMES[:3] if form == tarfile.USTAR_FORMAT else NAMES
    members = [a_file(name, bytes([number]) * 513 * number, mtime=1_000_000_000) for number, name in enumerate(names)]
    found = unpack(pack(*members, form=form), step=step)
    assert [(member.name, content) for member, content in found] == [(i.name, c) for i, c in members]
    assert {member.modified_at_ms for member, _ in found} == {1_000_000_000_000}
    assert [m.name for m, _ in unpack(pack(*members, form=form), skip=True)] == names


def test_times_bits_and_wishes() -> None:
    wishes = {"HELENITE.if-match": '"1-2"', "SCHILY.xattr.user.x": "y", "mtime": "1500000000.25"}
    data = pack(
        a_file("f", mode=0o755, pax_headers=wishes), a_file("g", mtime=0), a_file("d", b"", type=tarfile.DIRTYPE)
    )
    (f, _), (g, _), (d, _) = unpack(data)
    assert (f.modified_at_ms, f.is_executable, f.wishes) == (1_500_000_000_250, True, (("if-match", '"1-2"'),))
    assert (g.modified_at_ms, g.is_executable, g.wishes) == (0, False, ())
    assert (d.is_directory, d.is_executable) == (True, False)


def test_a_global_header_holds_for_all() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", pax_headers={"HELENITE.if-none-match": "*"}) as tar:
        for name in "ab":
            tar.addfile(*_opened(*a_file(name)))
    assert [member.wish("if-none-match") for member, _ in unpack(out.getvalue())] == ["*", "*"]


def _opened(info: tarfile.TarInfo, content: bytes) -> tuple[tarfile.TarInfo, io.BytesIO]:
    info.size = len(content)
    return info, io.BytesIO(content)


def test_what_is_neither_file_nor_directory_is_named_and_skipped() -> None:
    kinds = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
    members = [a_file(f"{number}", b"", type=kind, linkname="x") for number, kind in enumerate(kinds)]
    found = unpack(pack(*members, a_file("f", b"whole")))
    assert [bool(member.strange) for member, _ in found] == [True] * 5 + [False]
    assert found[-1][1] == b"whole"


@pytest.mark.parametrize("extended", [0, 2])
def test_sparse_files_are_skipped(extended: int) -> None:
    info = tarfile.TarInfo("holes")
    info.size = 600
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[156:157] = tarfile.GNUTYPE_SPARSE
    block[482] = bool(extended)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    maps = b"".join(bytes(504) + bytes([number < extended - 1]) + bytes(7) for number in range(extended))
    data = bytes(block) + maps + b"s" * 600 + padding(600) + pack(a_file("f", b"after"))
    (holes, _), (after, content) = unpack(data)
    assert (holes.strange, after.name, content) == ("a sparse file", "f", b"after")
    pax = pack(a_file("p", pax_headers={"GNU.sparse.major": "1"}))
    assert unpack(pax)[0][0].strange == "a sparse file"


def test_what_we_write_tarfile_reads() -> None:
    sent = [
        Member(name, 700, modified_at_ms=1_500_000_000_123, is_executable=True, wishes=(("etag", '"1-2"'),))
        for name in NAMES
    ]
    data = b"".join(format_header(member) + b"x" * 700 + padding(700) for member in sent) + END
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = tar.getmembers()
        assert [(info.name, info.size, info.mode) for info in found] == [(name, 700, 0o755) for name in NAMES]
        assert {info.pax_headers["HELENITE.etag"] for info in found} == {'"1-2"'}
        assert {info.mtime for info in found} == {1_500_000_000.123}
    assert [member for member, _ in unpack(data)] == sent


@pytest.mark.parametrize("cut", [0, 100, 512, 600, 1024, 1500, 2047])
def test_no_beginning_of_a_stream_is_whole(cut: int) -> None:
    data = pack(a_file("a", b"x" * 600), a_file("b", b"y"), form=tarfile.USTAR_FORMAT)
    with pytest.raises(BrokenTarError):
        unpack(data[:cut])


@pytest.mark.parametrize("data", [b"no tar at all" * 100, bytes(100), b"\xff" * 2048])
def test_what_is_no_tar(data: bytes) -> None:
    with pytest.raises(BrokenTarError):
        unpack(data)


def test_garbage_is_not_the_end() -> None:
    good = pack(a_file("a"), form=tarfile.USTAR_FORMAT)[: 2 * BLOCK_BYTES]
    with pytest.raises(BrokenTarError):
        unpack(good + b"garbage" * 1000)


def test_headers_of_any_size_are_not_taken_into_memory() -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 40
    with pytest.raises(BrokenTarError, match=f"{EXTENDED_BYTES_MAX}"):
        unpack(info.tobuf(tarfile.GNU_FORMAT))


@pytest.mark.parametrize("records", [b"x a=b\n", b"99 a=b\n", b"6 ab\n\n", b"a=b\n", b"6 a=bX"])
def test_damaged_records(records: bytes) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(records)
    data = info.tobuf(tarfile.USTAR_FORMAT) + records + padding(len(records)) + pack(a_file("f"))
    with pytest.raises(BrokenTarError):
        unpack(data)


@pytest.mark.parametrize("seed", range(20))
def test_damage_is_refused_or_harmless(seed: int) -> None:
    chance = random.Random(seed)
    data = bytearray(pack(*(a_file(name, b"z" * chance.randrange(3000)) for name in NAMES)))
    for _ in range(40):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 8)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            unpack(bytes(damaged))
        except BrokenTarError:
            continue
