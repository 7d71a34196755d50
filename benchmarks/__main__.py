"""Measure every claim about speed: our figures and the rivals', in turn, in one run.

    python -m benchmarks                                  all lines, five rounds each
    python -m benchmarks --only 1,5 --output results      some of the lines python -m benchmarks --only 1 --output
    results --append     add rounds to those of one line python -m benchmarks --output results --report        write the
    report again, from saved results python -m benchmarks --output results --report --into docs/benchmarks.md      and
    put it there, plots beside it

Each line is saved as DIR/line-NN.json; DIR/results.md, DIR/results.json and a plot per line are made from those in DIR.
Exit code 1 when a target is missed. docs/benchmarks.md describes each line and its result.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from benchmarks.lines import LINES, Line
from benchmarks.postgres import Scratch, database
from benchmarks.report import put_into, write
from benchmarks.results import Result, saved
from benchmarks.rivals import Environment
from benchmarks.running import Bench, say


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that databases and processes are removed even then
    if not options.report:
        with database(options.database_url) as url, Scratch(url) as scratch:
            bench = Bench(
                scratch,
                Environment(options.rivals),
                options.rounds or (1 if options.quick else 5),
                options.quick,
                options.seconds,
                options.messages,
            )
            for number in options.only:
                _run(LINES[number], bench, options)
    found = [result for number in LINES if (result := saved(options.output, number)) is not None]
    for result in found:
        _judge(result)
    print(text := write(found, options.output))
    if options.into is not None:
        put_into(options.into, text, options.output)
    return 1 if any(ratio.is_met is False for result in found for ratio in result.ratios) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=_numbers, default=list(LINES), metavar="1,5", help="these lines")
    parser.add_argument("--rounds", type=int, help="how often each is measured, in turn (5; with --quick 1)")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything, to see that it works")
    parser.add_argument("--seconds", type=float, help="how long lines 5, 6, 8, 9, 10 and 12 run")
    parser.add_argument("--messages", type=int, help="the size of the backlogs of lines 1, 2, 7, 11, 12 and 14")
    parser.add_argument(
        "--database-url", help="a server where this role may create databases; by default the run starts its own"
    )
    parser.add_argument("--output", type=Path, default=Path("benchmark-results"), metavar="DIR")
    parser.add_argument("--append", action="store_true", help="add rounds to those that DIR has")
    parser.add_argument("--report", action="store_true", help="measure nothing, write the report again")
    parser.add_argument("--into", type=Path, metavar="FILE", help="put the report between this Markdown file's marks")
    parser.add_argument("--rivals", type=Path, metavar="DIR", help="where rivals are installed")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    numbers = [int(each) for each in text.split(",")]
    if unknown := set(numbers) - set(LINES):
        raise argparse.ArgumentTypeError(f"there is no line {min(unknown)}")
    return numbers


def _run(line: Line, bench: Bench, options: argparse.Namespace) -> None:
    say(f"line {line.number}: {line.title}")
    began_at = time.perf_counter()
    result = line.run(bench)
    result.ran["again"] = _command(line, options)
    before = saved(options.output, line.number) if options.append else None
    if before is not None:
        _merge(result, before)
    result.save(options.output)
    say(f"  took {time.perf_counter() - began_at:.0f} s")


def _command(line: Line, options: argparse.Namespace) -> str:
    asked = {name: getattr(options, name) for name in ("rounds", "messages", "seconds")}
    flags = "".join(f" --{name} {value:.12g}" for name, value in asked.items() if value)
    return f"python -m benchmarks --only {line.number}{' --quick' if options.quick else ''}{flags}"


def _merge(result: Result, before: Result) -> None:
    result.rounds = {
        name: before.rounds.get(name, []) + result.rounds.get(name, [])
        for name in dict.fromkeys([*before.rounds, *result.rounds])
    }
    result.units = before.units | result.units
    result.ran["again"] = before.ran.get("again", result.ran.get("again"))
    result.ran["rounds"] = max(len(values) for values in result.rounds.values())


def _judge(result: Result) -> None:
    result.ratios = []
    LINES[result.line].judge(result)


if __name__ == "__main__":
    sys.exit(main())
