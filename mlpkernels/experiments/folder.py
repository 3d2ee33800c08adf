"""The folder of a `reproduce` run: one table, metrics, histories and a folder of pictures, each file whole."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..datasets import Dataset
from ..errors import DataError
from ..files import write_atomic
from .report import Kept, Report, markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = "pictures"


class Folder:
    """Where reports are kept; a row's files come all or none. In a quick run every name starts with "quick-".

    facts: date, machine and what else is to stand above the table.
    """

    def __init__(self, path: Path, quick: bool, facts: Mapping[str, str]) -> None:
        self.path, self.quick, self.facts = path, quick, dict(facts)
        self.reports: list[Report | Kept] = []

    def place(self, name: str) -> Path:
        """The path of a file."""
        return self.path / f"{'quick-' if self.quick else ''}{name}"

    def picture(self, name: str) -> Path:
        """The path of a picture."""
        return self.path / PICTURES / f"{'quick-' if self.quick else ''}{name}.png"

    @property
    def table(self) -> Path:
        """The Markdown file."""
        return self.place("table.md")

    def take_over(self) -> None:
        """Keep the rows that an earlier run of the same facts, but for the date, finished in this folder.

        DataError where the folder is of another run, or of none.
        """
        try:
            content = json.loads(self.place("metrics.json").read_text(encoding="utf-8"))
            facts, kept = content["facts"], [Kept(each) for each in content["experiments"]]
            differing = [name for name, value in self.facts.items() if facts[name] != value and name != "date"]
            date = str(facts["date"])
        except (OSError, ValueError, KeyError, TypeError):
            raise DataError(
                f"{self.path}: the folder is not empty, and nothing is overwritten: name a new one"
            ) from None
        if differing:
            name = differing[0]
            raise DataError(
                f"{self.path}: the folder is of another run, {name} {facts[name]} and not {self.facts[name]}, and "
                "nothing is overwritten: name a new one"
            )
        self.reports = list(kept)
        if date != self.facts["date"]:
            self.facts["date"] = f"{date.partition(' to ')[0]} to {self.facts['date']}"

    def add_samples(self, dataset: Dataset) -> None:
        """Draw images with their labels."""
        from ..gallery import samples_figure

        part = dataset.train
        figure = samples_figure(part.x, part.y, dataset.shape, dataset.classes, full_scale=dataset.full_scale)
        with self._whole() as written:
            self._draw("samples", figure, written)

    def add(self, report: Report) -> None:
        """Write a row's pictures, history, files and model, then the table and metrics of all rows so far."""
        name = report.row.name
        with self._whole() as written:
            for title, draw in report.figures.items():
                self._draw(f"{name}-{title}", draw(), written)
            for title, content in {"history.csv": report.history(), **report.files}.items():
                written.append(self.place(f"{name}-{title}"))
                write_atomic(written[-1], content)
            if report.model is not None:
                written.append(self.place(f"{name}-model.safetensors"))
                report.model.save(written[-1])
        self.reports.append(report)
        self.write()

    def write(self) -> None:
        """Write the table and metrics of all rows so far."""
        figures = {
            "quick": self.quick, "facts": self.facts, "experiments": [each.to_json() for each in self.reports],
        }  # fmt: skip
        write_atomic(self.place("metrics.json"), _json(figures))
        write_atomic(self.table, markdown(self.reports, self.facts).encode())

    @contextmanager
    def _whole(self) -> Iterator[list[Path]]:
        """The files that are written inside; all are removed again where it is left by an error or an interrupt."""
        written: list[Path] = []
        try:
            yield written
        except BaseException:
            for path in written:
                with suppress(OSError):
                    path.unlink()
            raise

    def _draw(self, name: str, figure: "Figure", written: list[Path]) -> None:
        from ..drawing import ORANGE, SMALL
        from ..plots import save_figure

        if self.quick:
            x, y = 1 - 8 / figure.bbox.width, 1 - 5 / figure.bbox.height
            words = figure.text(x, y, "quick: few epochs, few images", ha="right", va="top", color=ORANGE)
            words.set(fontsize=SMALL, fontfamily="DejaVu Sans")
        (self.path / PICTURES).mkdir(exist_ok=True)
        written.append(self.picture(name))
        save_figure(figure, written[-1])


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
