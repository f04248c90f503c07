"""Progress bars of long commands, on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click

STEPS = 500
"""A bar is drawn at most so often: drawing is not free where there are many steps."""


class Bars:
    """A progress bar for each stretch."""

    def __init__(self, *, show: bool) -> None:
        """`show`: whether there are any."""
        self._show = show

    def __call__(self, what: str, of: int) -> Callable[[], None]:
        """Begin a bar of `of` steps; what is returned is called after each."""
        bar = click.progressbar(
            length=of,
            label=f"{what:<26}",
            show_pos=True,
            file=sys.stderr,
            hidden=not self._show,
            update_min_steps=max(1, of // STEPS),
        )
        bar.render_progress()
        left = of

        def step() -> None:
            nonlocal left
            bar.update(1)
            left -= 1
            if not left:
                bar.render_finish()

        return step
