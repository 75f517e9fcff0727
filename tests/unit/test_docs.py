"""Documents that must say what the code says."""

import re
from pathlib import Path

from helenite.master import store

ROOT = Path(__file__).parents[2]


def indented_block(text: str) -> str:
    """The table of keys: the indented block that begins with `cluster`."""
    found = re.search(r"^    cluster .*?(?=\n\n|\n\S|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[0].rstrip()


def test_the_key_space_table_is_the_same_in_the_design_page_and_in_the_code() -> None:
    design = (ROOT / "helenite" / "DESIGN.md").read_text()
    assert indented_block(design) == indented_block(store.__doc__ or "")


def test_links_in_the_documents_lead_somewhere() -> None:
    for document in (ROOT / "README.md", ROOT / "helenite" / "DESIGN.md", ROOT / "webdav" / "COMPLIANCE.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_python_files_named_in_the_documents_exist() -> None:
    for document in (ROOT / "helenite" / "DESIGN.md", ROOT / "README.md"):
        for name in re.findall(r"`((?:\w+/)+\w+\.(?:py|lua|md))`", document.read_text()):
            assert (ROOT / "helenite" / name).exists() or (ROOT / name).exists(), f"{document.name}: {name}"
