"""What a notebook shows. It is drawn by `report.page.cell`, which is loaded by name: nothing that is shown depends on how."""

from importlib import import_module


class Shown:
    """Tables and pictures in the cell of a notebook."""

    def _repr_html_(self) -> str:
        return str(import_module("solversearch.report.page.cell").cell_of(self))
