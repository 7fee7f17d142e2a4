"""Stands for solversearch's plan_text.py, which an export puts here."""

from solversearch.plan_text import WHOLE, belongs, decoded, loaded, numbers

__all__ = ["WHOLE", "belongs", "decoded", "loaded", "numbers"]
