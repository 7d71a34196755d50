"""``python -P -m outbox_cli``: the command with which a supervisor starts its relays.

Without ``-P`` Python searches the current directory for modules first: a file there that has the name of one of our
modules, or of a library's module, would run in its place. So that directory is removed from the path, unless this
package is in it.
"""

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parents[1]

if not sys.flags.safe_path and sys.path and Path(sys.path[0]).resolve() != _HERE:
    del sys.path[0]

from outbox_cli import main  # noqa: E402 (not before the path is set)

main()
