"""Stands for solversearch's runtime.py, which an export puts here."""

from solversearch.runtime import Array, Node, Output, Row, Tableau, clamp, dynamic_threshold, run

__all__ = ["Array", "Node", "Output", "Row", "Tableau", "clamp", "dynamic_threshold", "run"]
