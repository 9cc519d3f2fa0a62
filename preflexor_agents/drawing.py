"""Figures that are the same bytes from one drawing to the next."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from preflexor_agents.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def drawing() -> "Iterator[type[Figure]]":
    """What figures are made of, while the settings hold that all our pictures have.

    Raises:
        InputError: matplotlib is missing.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("plots need matplotlib; install it with: pip install matplotlib") from None
    # Without a fixed salt the names inside an SVG differ from one drawing to the next.
    with matplotlib.rc_context({"svg.hashsalt": "preflexor", "svg.fonttype": "none", "font.size": 9}):
        yield Figure
