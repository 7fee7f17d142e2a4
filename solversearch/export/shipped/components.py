"""Stands for solversearch's components.py, which an export puts here."""

from solversearch.components import Components, Transform

__all__ = ["Components", "Transform"]
