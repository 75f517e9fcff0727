"""Draws the icons of the tray: a coloured disc with a white sign on it, in a size that also sharp screens scale down.

Used by `driver`. No system tells whether its panel is light or dark, so each colour is of middle brightness and stands
out on both. Pure but for Pillow, which pystray needs anyway.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from PIL import Image, ImageDraw

from syncagent.status import Mood
from syncagent.tray.menu import EIGHTHS, Badge

SIZE = 64
_FINE = 4
"""Drawn so many times larger, then scaled down: smooth edges."""
_WIDE = SIZE * _FINE
_MIDDLE = _WIDE / 2
_WHITE = (255, 255, 255, 255)

COLOURS: dict[Mood, tuple[int, int, int]] = {
    Mood.IDLE: (38, 145, 86),
    Mood.SYNCING: (36, 123, 209),
    Mood.PAUSED: (120, 124, 130),
    Mood.OFFLINE: (120, 124, 130),
    Mood.ATTENTION: (214, 94, 10),
}


def draw_icon(badge: Badge) -> Image.Image:
    """The icon of a badge, SIZE pixels wide and high, transparent around the disc."""
    image = Image.new("RGBA", (_WIDE, _WIDE), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    colour = (*COLOURS[badge.mood], 255)
    if badge.mood is Mood.ATTENTION:
        draw.polygon([_at(-90, 0.98), _at(30, 1.1), _at(150, 1.1)], colour)
    else:
        draw.ellipse(_box(0.94), colour)
    _SIGNS[badge.mood](draw)
    if badge.eighths:
        draw.arc(_box(0.94), -90, -90 + 360 * badge.eighths / EIGHTHS, _WHITE, round(_WIDE * 0.07))
    return image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)


def _at(degrees: float, radius: float) -> tuple[float, float]:
    """A point around the middle, clockwise from the right; the radius in halves of the icon."""
    angle = math.radians(degrees)
    return _MIDDLE + _MIDDLE * radius * math.cos(angle), _MIDDLE + _MIDDLE * radius * math.sin(angle)


def _box(radius: float) -> tuple[float, float, float, float]:
    half = _MIDDLE * radius
    return _MIDDLE - half, _MIDDLE - half, _MIDDLE + half, _MIDDLE + half


def _line(draw: ImageDraw.ImageDraw, *points: tuple[float, float], width: float = 0.1) -> None:
    """A line through points given in parts of the icon, with round ends."""
    scaled = [(x * _WIDE, y * _WIDE) for x, y in points]
    thick = width * _WIDE
    draw.line(scaled, _WHITE, round(thick), joint="curve")
    for x, y in scaled:
        draw.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), _WHITE)


def _check(draw: ImageDraw.ImageDraw) -> None:
    _line(draw, (0.3, 0.52), (0.44, 0.66), (0.71, 0.36))


def _arrows(draw: ImageDraw.ImageDraw) -> None:
    _line(draw, (0.4, 0.7), (0.4, 0.34), width=0.085)
    _line(draw, (0.3, 0.44), (0.4, 0.33), (0.5, 0.44), width=0.085)
    _line(draw, (0.6, 0.3), (0.6, 0.66), width=0.085)
    _line(draw, (0.5, 0.56), (0.6, 0.67), (0.7, 0.56), width=0.085)


def _bars(draw: ImageDraw.ImageDraw) -> None:
    _line(draw, (0.4, 0.35), (0.4, 0.65))
    _line(draw, (0.6, 0.35), (0.6, 0.65))


def _cross(draw: ImageDraw.ImageDraw) -> None:
    _line(draw, (0.36, 0.36), (0.64, 0.64))
    _line(draw, (0.64, 0.36), (0.36, 0.64))


def _exclamation(draw: ImageDraw.ImageDraw) -> None:
    _line(draw, (0.5, 0.32), (0.5, 0.55))
    _line(draw, (0.5, 0.71), (0.5, 0.71))


_SIGNS: dict[Mood, Callable[[ImageDraw.ImageDraw], None]] = {
    Mood.IDLE: _check,
    Mood.SYNCING: _arrows,
    Mood.PAUSED: _bars,
    Mood.OFFLINE: _cross,
    Mood.ATTENTION: _exclamation,
}
