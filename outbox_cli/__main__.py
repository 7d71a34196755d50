"""``python -P -m outbox_cli``: how a supervisor starts its relays.

Without ``-P`` Python looks for every module in the current directory first: a file there that has the name of one of
ours, or of a library's, would run in its place. So that directory is taken off the path, unless this package is there.
"""

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parents[1]

if not sys.flags.safe_path and sys.path and Path(sys.path[0]).resolve() != _HERE:
    del sys.path[0]

from outbox_cli import main  # noqa: E402 (not before)

main()
