"""The page that a browser gets for a directory: breadcrumbs, names, sizes, dates.

Used by `reading`. Plain HTML without scripts, made while it is sent; members are sorted, directories first. Pure but
for the template, which is read once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from string import Template

from helenite.core.model import Entry, EntryView
from helenite.core.paths import Path
from webdav.markup import text
from webdav.urls import format_href, quote_name

UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


@cache
def _template() -> tuple[Template, str]:
    """What stands before the rows and what stands behind them."""
    before, _, behind = files("webdav").joinpath("listing.html").read_text("utf-8").partition("$rows")
    return Template(before), behind


def render_listing(path: Path, members: Iterable[EntryView]) -> Iterator[bytes]:
    """The page in pieces. Sorting needs all members at once: some 300 bytes for each."""
    entries = sorted((view.entry for view in members), key=lambda entry: (not entry.is_directory, entry.name))
    before, behind = _template()
    title = text(path[-1] if path else "Helenite")
    yield before.substitute(title=title, breadcrumbs=_breadcrumbs(path)).encode()
    if path:
        yield _row(format_href(path[:-1], is_directory=True), "..", "directory", "", "").encode()
    here = format_href(path, is_directory=True)
    for entry in entries:
        yield _row_of_entry(here, entry).encode()
    yield behind.encode()


def _breadcrumbs(path: Path) -> str:
    links = ['<a href="/">Helenite</a>']
    for depth in range(1, len(path) + 1):
        href = text(format_href(path[:depth], is_directory=True))
        links.append(f'<a href="{href}">{text(path[depth - 1])}</a>')
    return " / ".join(links)


def _row_of_entry(here: str, entry: Entry) -> str:
    modified = datetime.fromtimestamp(entry.modified_at_ms // 1000, UTC).strftime("%Y-%m-%d %H:%M")
    href = here + quote_name(entry.name)
    if entry.is_directory:
        return _row(f"{href}/", f"{entry.name}/", "directory", "", modified)
    return _row(href, entry.name, "file", format_size(entry.size_bytes), modified)


def _row(href: str, name: str, kind: str, size: str, modified: str) -> str:
    return (
        f'<tr><td><a href="{text(href)}" class="{kind}">{text(name)}</a></td>'
        f'<td class="size">{size}</td><td class="time">{modified}</td></tr>\n'
    )


def format_size(size_bytes: int) -> str:
    """A size for people: `999 B`, `1.5 MiB`."""
    size = float(size_bytes)
    for unit in UNITS:
        if size < 1024 or unit == UNITS[-1]:
            return f"{size_bytes} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("the last unit takes every size")
