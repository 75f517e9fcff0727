"""What Finder, Explorer and Word say when a person works, request by request, on a real cluster with two workers.

None of the three runs here. Their words are those of Apple's webdavfs sources and of recorded sessions of the Windows
WebClient and of Word. Each request comes on a connection of its own, so that any worker may get it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree as ET

import httpx
import pytest

D = "{DAV:}"
WIN32 = "{urn:schemas-microsoft-com:}"
EXPLORER = {"User-Agent": "Microsoft-WebDAV-MiniRedir/10.0.22631", "translate": "f"}
FINDER = {"User-Agent": "WebDAVFS/3.0.0 (03008000) Darwin/23.0.0 (arm64)", "Accept": "*/*"}
WRITTEN = "Sat, 04 Jul 2026 10:20:30 GMT"
TIMES = "".join(
    f"<Z:Win32{name}>{WRITTEN}</Z:Win32{name}>" for name in ("CreationTime", "LastAccessTime", "LastModifiedTime")
)
PROPPATCH = (
    '<?xml version="1.0" encoding="utf-8" ?><D:propertyupdate xmlns:D="DAV:" xmlns:Z="urn:schemas-microsoft-com:">'
    f"<D:set><D:prop>{TIMES}<Z:Win32FileAttributes>%s</Z:Win32FileAttributes></D:prop></D:set></D:propertyupdate>"
)
LOCK = (
    '<?xml version="1.0" encoding="utf-8" ?><D:lockinfo xmlns:D="DAV:"><D:lockscope><D:exclusive/></D:lockscope>'
    "<D:locktype><D:write/></D:locktype><D:owner><D:href>OFFICE\\anna</D:href></D:owner></D:lockinfo>"
)
FINDER_PROPS = (
    '<?xml version="1.0" encoding="utf-8"?><D:propfind xmlns:D="DAV:"><D:prop>'
    "<D:getlastmodified/><D:getcontentlength/><D:creationdate/><D:resourcetype/>"
    '<A:appledoubleheader xmlns:A="http://www.apple.com/webdav_fs/props/"/></D:prop></D:propfind>'
)
FINDER_SPACE = (
    '<?xml version="1.0" encoding="utf-8"?><D:propfind xmlns:D="DAV:"><D:prop>'
    "<D:quota-available-bytes/><D:quota-used-bytes/><D:quota/><D:quotaused/></D:prop></D:propfind>"
)


class Desktop:
    """One program on one machine, and the folder it works in."""

    def __init__(self, url: str, home: str, says: dict[str, str]) -> None:
        self._url = url
        self._says = says
        self.home = home
        self._http = httpx.Client(limits=httpx.Limits(max_keepalive_connections=0), headers=says, timeout=30)
        self.ask("MKCOL", "", wants=201)

    def close(self) -> None:
        self._http.close()

    def link(self, name: str) -> str:
        return f"{self._url}{self.home}/{name}"

    def ask(
        self, method: str, name: str, *, wants: int, content: bytes | str | Iterator[bytes] = b"", **headers: str
    ) -> httpx.Response:
        """One request about an entry of the folder; the answer must have this status."""
        given = {key.replace("_", "-"): value for key, value in headers.items()}
        reply = self._http.request(method, self.link(name), content=content, headers=given)
        assert reply.status_code == wants, f"{method} {name}: {reply.status_code} {reply.text}"
        return reply

    def lock(self, name: str, *, timeout: str, **headers: str) -> str:
        """Take an exclusive lock; its token."""
        reply = self.ask("LOCK", name, wants=200, content=LOCK, Timeout=timeout, Content_Type="text/xml", **headers)
        token = reply.headers["Lock-Token"]
        assert re.fullmatch(r"<[a-z-]+:[^<>]+>", token)
        assert f"<D:locktoken><D:href>{token.strip('<>')}</D:href>" in reply.text
        return str(token)

    def properties(self, name: str, *, depth: str, content: str = "") -> dict[str, dict[str, ET.Element]]:
        """The properties that were found, by the last segment of each link."""
        reply = self.ask("PROPFIND", name, wants=207, content=content, Depth=depth)
        found = {}
        for response in ET.fromstring(reply.content).iter(f"{D}response"):
            link = response.findtext(f"{D}href", "").rstrip("/").rpartition("/")[2]
            found[link] = {
                prop.tag: prop
                for stat in response.iter(f"{D}propstat")
                if "200" in stat.findtext(f"{D}status", "")
                for prop in stat.iterfind(f"{D}prop/*")
            }
        return found

    @property
    def names(self) -> set[str]:
        return set(self.properties("", depth="1")) - {self.home}


@pytest.fixture
def desk(gateway_url: str, request: pytest.FixtureRequest) -> Iterator[Desktop]:
    name = request.function.__name__
    made = Desktop(gateway_url, name, EXPLORER if "explorer" in name else FINDER)
    yield made
    made.close()


# Explorer, and Word on a mapped drive


def explorer_saves(desk: Desktop, name: str, content: bytes, attributes: str = "00000020") -> None:
    """What the WebClient sends when a program makes, writes and closes a file."""
    desk.ask("PROPFIND", name, wants=404, Depth="0")
    desk.ask("PUT", name, wants=201, Content_Length="0")
    token = desk.lock(name, timeout="Second-3600")
    holding = {"If": f"({token})"}
    told = desk.ask("PROPPATCH", name, wants=207, content=PROPPATCH % attributes, **holding)
    assert "200" in told.text
    assert "HTTP/1.1 4" not in told.text
    desk.ask("HEAD", name, wants=200)
    desk.ask("PUT", name, wants=204, content=content, **holding)
    desk.ask("PROPPATCH", name, wants=207, content=PROPPATCH % attributes, **holding)
    desk.ask("UNLOCK", name, wants=204, Lock_Token=token)


def test_explorer_maps_the_drive(desk: Desktop) -> None:
    reply = desk.ask("OPTIONS", "", wants=200)
    assert {"1", "2"} <= set(reply.headers["DAV"].replace(" ", "").split(","))
    assert reply.headers["MS-Author-Via"] == "DAV"
    for verb in ("PROPFIND", "PROPPATCH", "LOCK", "UNLOCK", "MOVE", "COPY", "DELETE"):
        assert verb in reply.headers["Allow"]
    (own,) = desk.properties("", depth="0").values()
    assert own[f"{D}resourcetype"].find(f"{D}collection") is not None
    for name in ("desktop.ini", "AutoRun.inf", "Thumbs.db", "folder.jpg"):
        desk.ask("PROPFIND", name, wants=404, Depth="0")


def test_explorer_copies_a_file_in_and_works_with_it(desk: Desktop) -> None:
    explorer_saves(desk, "holiday%20%231.jpg", b"\xff\xd8" + bytes(300_000))
    (found,) = desk.properties("holiday%20%231.jpg", depth="0").values()
    assert found[f"{D}getlastmodified"].text == WRITTEN
    assert found[f"{D}creationdate"].text == "2026-07-04T10:20:30Z"
    assert found[f"{D}getcontentlength"].text == "300002"
    assert not list(found[f"{D}lockdiscovery"])

    renamed = desk.link("s%C3%BCden.jpg")
    desk.ask("MOVE", "holiday%20%231.jpg", wants=201, Destination=renamed, Overwrite="F")
    explorer_saves(desk, "other.jpg", b"other")
    desk.ask("MOVE", "other.jpg", wants=412, Destination=renamed, Overwrite="F")
    desk.ask("COPY", "other.jpg", wants=204, Destination=renamed, Overwrite="T")
    assert desk.ask("GET", "s%C3%BCden.jpg", wants=200).content == b"other"

    desk.ask("MKCOL", "New%20folder", wants=201)
    desk.ask("MOVE", "New%20folder", wants=201, Destination=desk.link("Trips/"), Overwrite="F")
    desk.ask("MOVE", "other.jpg", wants=201, Destination=desk.link("Trips/other.jpg"), Overwrite="F")
    assert desk.names == {"Trips", "s%C3%BCden.jpg"}
    desk.ask("DELETE", "Trips", wants=204)
    assert desk.names == {"s%C3%BCden.jpg"}


def test_explorer_lets_word_save_twice(desk: Desktop) -> None:
    """Word writes a new file, moves the old one out of the way, the new one into its place, and deletes the old one."""
    explorer_saves(desk, "report.docx", b"first")
    opened = desk.lock("report.docx", timeout="Second-3600")
    explorer_saves(desk, "~$report.docx", b"\x04anna" + bytes(157), attributes="00000022")
    for number in (1, 2):
        written = b"edition %d" % number
        explorer_saves(desk, f"~WRD000{number}.tmp", written)
        desk.ask("UNLOCK", "report.docx", wants=204, Lock_Token=opened)
        desk.ask("MOVE", "report.docx", wants=201, Destination=desk.link(f"~WRL000{number}.tmp"), Overwrite="F")
        desk.ask("PROPFIND", "report.docx", wants=404, Depth="0")
        desk.ask("MOVE", f"~WRD000{number}.tmp", wants=201, Destination=desk.link("report.docx"), Overwrite="F")
        opened = desk.lock("report.docx", timeout="Second-3600")
        desk.ask("LOCK", "report.docx", wants=200, If=f"({opened})", Timeout="Second-3600")
        desk.ask("DELETE", f"~WRL000{number}.tmp", wants=204)
        assert desk.ask("GET", "report.docx", wants=200).content == written
    desk.ask("PUT", "report.docx", wants=423, content=b"somebody else")
    desk.ask("UNLOCK", "report.docx", wants=204, Lock_Token=opened)
    desk.ask("DELETE", "~$report.docx", wants=204)
    assert desk.names == {"report.docx"}


# Finder, and TextEdit on the mounted drive


def finder_saves(desk: Desktop, name: str, content: bytes) -> httpx.Response:
    """What webdavfs sends when a program makes, writes and closes a file; the answer to the last PUT."""
    desk.ask("PROPFIND", name, wants=404, content=FINDER_PROPS, Depth="0")
    desk.ask("PUT", name, wants=201, Content_Length="0")
    token = desk.lock(name, timeout="Second-600", Depth="0")
    pieces = (content[at : at + 60_000] for at in range(0, len(content), 60_000))
    told = desk.ask("PUT", name, wants=204, content=pieces, If=f"({token})", X_Expected_Entity_Length=str(len(content)))
    desk.ask("LOCK", name, wants=200, If=f"({token})", Timeout="Second-600")
    desk.ask("UNLOCK", name, wants=204, Lock_Token=token)
    return told


def test_finder_mounts_and_browses(desk: Desktop) -> None:
    assert "2" in desk.ask("OPTIONS", "", wants=200).headers["DAV"]
    (space,) = desk.properties("", depth="0", content=FINDER_SPACE).values()
    assert int(space[f"{D}quota-available-bytes"].text or "") > 0
    assert int(space[f"{D}quota-used-bytes"].text or "") >= 0
    finder_saves(desk, "notes.txt", b"some text")
    listing = desk.properties("", depth="1", content=FINDER_PROPS)
    assert set(listing) == {desk.home, "notes.txt"}
    assert listing["notes.txt"][f"{D}getcontentlength"].text == "9"
    for name in (".metadata_never_index", ".Spotlight-V100", "._.", "._notes.txt", ".DS_Store", ".localized"):
        desk.ask("PROPFIND", name, wants=404, content=FINDER_PROPS, Depth="0")


def test_finder_copies_a_file_in_with_its_resource_fork(desk: Desktop) -> None:
    content = bytes(range(256)) * 2000
    told = finder_saves(desk, "film.mov", content)
    finder_saves(desk, "._film.mov", b"\x00\x05\x16\x07" + bytes(4092))
    listing = desk.properties("", depth="1", content=FINDER_PROPS)
    assert set(listing) == {desk.home, "film.mov", "._film.mov"}

    read = desk.ask("GET", "film.mov", wants=200)
    assert read.content == content
    assert read.headers["ETag"] == told.headers["ETag"]
    when = read.headers["Last-Modified"]
    desk.ask("GET", "film.mov", wants=304, If_Modified_Since=when)
    rest = desk.ask("GET", "film.mov", wants=206, Range="bytes=500000-", If_Range=read.headers["ETag"])
    assert rest.content == content[500_000:]

    desk.ask("DELETE", "._film.mov", wants=204)
    desk.ask("PROPFIND", "._film.mov", wants=404, content=FINDER_PROPS, Depth="0")
    desk.ask("DELETE", "film.mov", wants=204)
    assert desk.names == set()


def test_finder_lets_textedit_save_twice(desk: Desktop) -> None:
    """A safe save: a directory of its own beside the document, the new file in it, moved over the old one."""
    finder_saves(desk, "letter.txt", b"first")
    for number in (1, 2):
        own = f"letter.txt.sb-{number:08x}-AbCdEf"
        desk.ask("MKCOL", f"{own}/", wants=201)
        finder_saves(desk, f"{own}/letter.txt", b"edition %d" % number)
        desk.ask("MOVE", f"{own}/letter.txt", wants=204, Destination=desk.link("letter.txt"))
        desk.ask("DELETE", f"{own}/", wants=204)
        assert desk.ask("GET", "letter.txt", wants=200).content == b"edition %d" % number
    assert desk.names == {"letter.txt"}
