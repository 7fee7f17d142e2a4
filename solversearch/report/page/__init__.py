"""One self-contained HTML page of a run, a study or a sweep: it works offline, and runs nothing that its files say.

files -> a page of plain blocks (`blocks`) -> one template -> HTML
"""

from solversearch.report.page.build import write_page

__all__ = ["write_page"]
