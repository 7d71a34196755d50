"""The command line ``outbox``."""

import gc
import sys


def main() -> None:
    """Run the command that the arguments name; the console script ``outbox``, which a worker's slim image has, too."""
    _say_that_it_starts(sys.argv[1:])
    # What is imported stays: looking again and again for what of it could go would be a quarter of a short command.
    gc.set_threshold(50_000, 20, 100)
    try:
        from outbox.own_packages import make_way

        make_way(["."])  # where listeners are looked for, too
        from outbox_cli.app import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.startswith(("relay", "outbox", "_neverlost_")):
            raise
        sys.stderr.write(
            f"outbox: {missing.name} is not installed: this is an installation for workers, which emit and no more. "
            "For commands install the same wheel again, without --no-deps\n"
        )
        sys.exit(3)
    run()


def _say_that_it_starts(arguments: list[str]) -> None:
    """Begin the demo with a line, before anything is imported: where nothing is compiled yet, that takes its time."""
    if arguments[:1] == ["demo"] and not {"-h", "--help"} & set(arguments) and sys.stderr is not None:
        sys.stderr.write("Loading the demo; the first time this can take half a minute ...\n")
        sys.stderr.flush()


__all__ = ["main"]
