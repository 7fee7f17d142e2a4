"""Stands for solversearch's runtime.py, which an export puts here."""

from solversearch.runtime import Array, Node, Output, Row, Start, Tableau, clamp, dynamic_threshold, initial, run

__all__ = ["Array", "Node", "Output", "Row", "Start", "Tableau", "clamp", "dynamic_threshold", "initial", "run"]
