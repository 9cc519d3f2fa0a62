"""Widgets that grow while a model writes, laid out and drawn once for every new line."""

from textual.containers import Vertical, VerticalScroll
from textual.geometry import Size
from textual.reactive import Reactive


class Growing:
    """A widget whose new size is a layout's result, not a reason for another layout and another picture."""

    virtual_size = Reactive(Size(0, 0), repaint=False)


class Column(Growing, Vertical):
    """Things below each other."""


class Log(Growing, VerticalScroll, can_focus=False):
    """The conversation; a bar that comes or goes still has it laid out again."""
