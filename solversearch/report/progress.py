"""Progress on the terminal: a bar a stage with the time left; where stderr is no terminal, as in a notebook, a line a stage."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text


class Display:
    """A context manager, and the `progress(stage, done, total, note)` that the long jobs call."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bars = Progress(
            TextColumn("{task.description:<14}"), BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
            console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self.stage, self.done, self.note = "", 0, ""
        self.task: TaskID | None = None

    def __enter__(self) -> "Display":
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def __call__(self, stage: str, done: int, total: int, note: str) -> None:
        if self.task is None or stage != self.stage or done < self.done:  # the next stage, or the next round of the same
            self._finish()
            self.task = self.bars.add_task(stage, total=total or None, note=note)
            if not self.console.is_terminal:
                self.console.print(Text(f"{stage}{': ' + note if note else ''}"), soft_wrap=True)
        self.stage, self.done = stage, done
        self.bars.update(self.task, completed=done, total=total or None, note=note)

    def _finish(self) -> None:
        """A stage that stopped early, or did not know how much there was, is full when the next begins."""
        if self.task is not None:
            self.bars.update(self.task, total=self.done, completed=self.done)
