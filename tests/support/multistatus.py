"""What a 207 says (RFC 4918 section 13), taken apart for tests."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from tests.support.raw_http import Reply

D = "{DAV:}"
NAMED = '<propfind xmlns="DAV:"><prop>{}</prop></propfind>'
"""A PROPFIND's body, to be filled with the properties that it names."""


def multistatus(reply: Reply) -> dict[str, dict[str, dict[int, ET.Element]]]:
    """href -> property name -> status -> element."""
    assert reply.status == 207, reply
    assert reply["Content-Type"] == "application/xml; charset=utf-8"
    found: dict[str, dict[str, dict[int, ET.Element]]] = {}
    for response in ET.fromstring(reply.body).iter(f"{D}response"):
        properties: dict[str, dict[int, ET.Element]] = {}
        for propstat in response.iter(f"{D}propstat"):
            status = int((propstat.findtext(f"{D}status") or "").split()[1])
            for element in propstat.find(f"{D}prop") or ():
                properties.setdefault(element.tag, {})[status] = element
        found[response.findtext(f"{D}href") or ""] = properties
    return found
