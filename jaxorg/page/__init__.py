"""The page that a sweep's results become: its tables, its charts and its templates."""

from jaxorg.page.render import render

__all__ = ["render"]
