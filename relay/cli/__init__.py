"""The command line ``outbox``."""

import sys


def main() -> None:
    """Run the command that the arguments name; the console script ``outbox``, which a worker's slim image has, too."""
    try:
        from relay.cli.app import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.startswith(("relay", "outbox")):
            raise
        sys.stderr.write(
            f"outbox: {missing.name} is not installed: this is an installation for workers, which emit and no more. "
            "For commands install the same wheel again, without --no-deps\n"
        )
        sys.exit(3)
    run()


__all__ = ["main"]
