"""The command line ``outbox``."""

import gc
import sys


def main() -> None:
    """Run the command that the arguments name: the console script ``outbox``. A worker's slim image has it, too."""
    _say_that_it_starts(sys.argv[1:])
    # Imported objects stay alive: a short command ends before it searches them for garbage.
    gc.set_threshold(200_000, 20, 100)
    try:
        from outbox.own_packages import make_way

        make_way(["."])  # listeners are also looked up in this directory
        from outbox_cli.app import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.startswith(("relay", "outbox", "_neverlost_")):
            raise
        sys.stderr.write(
            f"outbox: {missing.name} is not installed: this installation is for workers, which only emit. "
            "For commands, install the same wheel again without --no-deps\n"
        )
        sys.exit(3)
    try:
        run()
    finally:
        gc.freeze()  # otherwise the interpreter would search all objects for garbage once more before it ends


def _say_that_it_starts(arguments: list[str]) -> None:
    """Print a line before the demo's imports, which take time when nothing is compiled yet."""
    if arguments[:1] == ["demo"] and not {"-h", "--help"} & set(arguments) and sys.stderr is not None:
        sys.stderr.write("Loading the demo; the first time this can take half a minute ...\n")
        sys.stderr.flush()


__all__ = ["main"]
