"""Write the results as Markdown, as one JSON file, and as plots."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path

from benchmarks.plots import bars, curves
from benchmarks.results import Ratio, Result


def write(results: Sequence[Result], folder: Path) -> str:
    """Write everything into the folder and return the Markdown."""
    text = "\n\n".join([_summary(results), *(_section(result) for result in results)]) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.md").write_text(text)
    kept = [{**asdict(result), "medians": _medians(result)} for result in results]
    (folder / "results.json").write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    for result in results:
        if plot := _plot(result):
            (folder / f"line-{result.line:02}.svg").write_text(plot)
    return text


MANY = 7
BEGIN, END = "<!-- results: written by `python -m benchmarks --report --into` -->", "<!-- end of results -->"


def put_into(file: Path, text: str, folder: Path) -> None:
    """Put the report between the marks of a Markdown file, and its plots into the folder of the same name beside it."""
    before, _, rest = file.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    plots = file.with_suffix("")
    plots.mkdir(exist_ok=True)
    for plot in sorted(folder.glob("line-*.svg")):
        (plots / plot.name).write_text(plot.read_text())
        line = int(plot.stem.removeprefix("line-"))
        heading = next((each for each in text.splitlines() if each.startswith(f"## {line}. ")), None)
        if heading is not None:
            text = text.replace(heading, f"{heading}\n\n![{heading[3:]}]({plots.name}/{plot.name})")
    file.write_text(f"{before}{BEGIN}\n\n{text.replace(chr(10) + '## ', chr(10) + '### ')}\n{END}{after}")


def _summary(results: Sequence[Result]) -> str:
    rows = [
        f"| {result.line} | {ratio.name} | {_value(ratio)} | {_target(ratio)} | {_met(ratio)} |"
        for result in results
        for ratio in result.ratios
    ]
    return "\n".join(["| line | | measured | target | |", "|---|---|---|---|---|", *rows])


def _section(result: Result) -> str:
    facts = {name: value for name, value in result.ran.items() if name != "again"}
    ran = ", ".join(f"{name.replace('_', ' ')} {_plain(value)}" for name, value in facts.items())
    again = f" Repeat it: `{result.ran['again']}`." if "again" in result.ran else ""
    notes = [f"{note.rstrip('.')}." for note in result.notes]
    notes += [f"**Not run:** {each}" for each in result.missing]
    parts = [
        f"## {result.line}. {result.title}",
        "\n".join(_figures(result)),
        " ".join([f"Run: {ran}.{again}", *notes]),
    ]
    return "\n\n".join(part for part in parts if part)


def _figures(result: Result) -> list[str]:
    """Return a table of the medians and their ranges, with two figures in a row."""
    cells = [
        f"| {name} | {_number(median)} {result.units[name]}{_range(values)} "
        for (name, values), median in zip(result.rounds.items(), _medians(result).values(), strict=True)
    ]
    rows = [f"{first}{second}|" for first, second in zip_longest(cells[::2], cells[1::2], fillvalue="| | ")]
    return ["| | median (range) | | median (range) |", "|---|---|---|---|", *rows] if rows else []


def _range(values: Sequence[float]) -> str:
    lowest, highest = _number(min(values)), _number(max(values))
    return f" ({lowest} – {highest})" if lowest != highest else ""


def _medians(result: Result) -> dict[str, float]:
    return {name: result.median(name) for name in result.rounds}


def _plot(result: Result) -> str | None:
    """Return the curves of a line, or bars where many contestants are compared. A few figures need no plot."""
    if result.series:
        return curves(result.title, result.series, result.axes)
    first = next(iter(result.units.values()), "")
    medians = {name: value for name, value in _medians(result).items() if result.units[name] == first}
    return bars(result.title, medians, first) if len(medians) >= MANY else None


def _value(ratio: Ratio) -> str:
    return f"{_number(ratio.value)} {ratio.unit}"


def _target(ratio: Ratio) -> str:
    if ratio.target is None:
        return ""
    return f"{'≤' if ratio.at_most else '≥'} {ratio.target:,g} {ratio.unit}"


def _met(ratio: Ratio) -> str:
    return {True: "met", False: "**missed**", None: ""}[ratio.is_met]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _plain(value: object) -> str:
    if isinstance(value, list):
        return " / ".join(map(_plain, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
