"""The page as HTML. Whatever comes from the database goes through `_text`, and so can be nothing but text."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from shlex import quote

from outbox_cli.dashboard.picture import Picture
from relay.observe.text import one_line, redacted
from relay.platform.wording import duration, ranges, utc

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --dim: #5d6778; --line: #dfe3ea; --back: #f6f7f9; --card: #fff;
  --bad: #b3261e; --warn: #8a5a00; --good: #1b6e3c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --dim: #9aa5b8; --line: #2d3544; --back: #12161e;
  --card: #1a202b; --bad: #ff8a80; --warn: #f0b95a; --good: #7bd69b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.25rem; background: var(--back); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; }
header { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; align-items: baseline; margin-bottom: 1rem; }
h1 { font-size: 1.35rem; margin: 0; } h2 { font-size: 1rem; margin: 1.75rem 0 .5rem; }
.dim, th { color: var(--dim); } .bad { color: var(--bad); } .warn { color: var(--warn); } .good { color: var(--good); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(7.5rem, 1fr)); gap: .75rem; margin: 0; }
.tiles div, .scroll { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; }
.tiles div { padding: .6rem .8rem; } .tiles dt { color: var(--dim); font-size: .85rem; }
.tiles dd { margin: 0; font-size: 1.5rem; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .45rem .8rem; vertical-align: top; white-space: nowrap; }
th { font-weight: 500; font-size: .85rem; } td { border-top: 1px solid var(--line); }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.wide { min-width: 16rem; white-space: normal; overflow-wrap: anywhere; }
code { font: .87em ui-monospace, monospace; user-select: all; }
""".strip()
STYLE_HASH = "sha256-" + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
TONE = {"healthy": "good", "off": "bad", "removed": "bad"}
WIDE, NUMBERS = {"Reason", "For example", "To what"}, {"Count", "Waiting", "parked", "retrying", "Dead", "Shards"}

Row = Iterable[object]


class Html(str):
    """Markup that was made here, and is not escaped again."""


def page(picture: Picture, refresh_s: int) -> str:
    """The whole page."""
    title = f"{picture.status.dead:,} dead · outbox" if picture.status.dead else "outbox"
    about = "".join(
        f'<span class="dim">{_text(fact)}</span>'
        for fact in (picture.database, utc(picture.at), f"again every {refresh_s} s")
    )
    return _document(
        title, refresh_s, about, _tiles(picture), _dead(picture), *_destinations_and_relays(picture), _actions(picture)
    )


def trouble(said: str, refresh_s: int) -> str:
    """The page when there is nothing to show."""
    return _document("outbox: no picture", refresh_s, "", f'<p class="bad">{_text(said)}</p>')


def _tiles(picture: Picture) -> str:
    found = picture.status
    counts = (
        ("Waiting", found.waiting, ""),
        ("Oldest waiting", duration(found.oldest_waiting_s), ""),
        ("Not due yet", found.scheduled, ""),
        ("Unrouted", found.unrouted, "bad"),
        ("Dead", found.dead, "bad"),
        ("Delivered", f"{'~' if found.delivered_is_estimate else ''}{found.delivered:,}", ""),
        ("Discarded", found.discarded, ""),
        ("Cancelled", found.cancelled, ""),
        ("Expired", found.expired, ""),
    )
    tiles = (
        f'<div><dt>{name}</dt><dd class="{tone if value else ""}">{_text(value)}</dd></div>'
        for name, value, tone in counts
    )
    return f'<dl class="tiles">{"".join(tiles)}</dl>'


def _dead(picture: Picture) -> str:
    rows = (
        (c.destination, c.count, c.reason, c.first_at, c.last_at, _code(f"outbox dead retry --cause {c.fingerprint}"))
        for c in picture.causes
    )
    columns = ("Destination", "Count", "For example", "First", "Last", "To bring them back")
    return _section("Dead letters, by cause", columns, rows, "There are none.")


def _destinations_and_relays(picture: Picture) -> tuple[str, str]:
    destinations = (
        (
            n,
            _toned(d.health, TONE.get(d.state, "warn")),
            d.waiting,
            d.parked,
            d.retrying,
            d.dead,
            d.reason,
            d.until,
            _code(_resume(n, d.state)),
        )
        for n, d in picture.status.destinations.items()
    )
    relays = (
        (r.id, len(r.shards), ranges(r.shards), f"{duration(r.last_seen_s)} ago", r.release)
        for r in picture.status.relays
    )
    columns = ("Destination", "State", "Waiting", "parked", "retrying", "Dead", "Reason", "Until", "To try it now")
    return (
        _section("Destinations", columns, destinations, "None is registered: `outbox relay` registers it."),
        _section(
            "Relays",
            ("Relay", "Shards", "Which", "Last seen", "Release"),
            relays,
            "None is alive: run `outbox relay`.",
        ),
    )


def _actions(picture: Picture) -> str:
    rows = (
        (a.at, a.actor, a.action, json.dumps(a.target, ensure_ascii=False), a.count, a.reason) for a in picture.actions
    )
    columns = ("At", "Who", "What", "To what", "Count", "Reason")
    return _section("What operators did last", columns, rows, "Nothing yet.")


def _resume(name: str, state: str) -> str:
    return "" if state in ("healthy", "removed") else f"outbox resume {quote(name)}"


def _section(title: str, columns: Sequence[str], rows: Iterable[Row], empty: str) -> str:
    marks = [_mark(column) for column in columns]
    body = "".join(
        "<tr>" + "".join(f"<td{mark}>{_text(value)}</td>" for mark, value in zip(marks, row, strict=True)) + "</tr>"
        for row in rows
    )
    if not body:
        return f'<h2>{title}</h2><p class="dim">{empty}</p>'
    head = "".join(f"<th{mark}>{column}</th>" for mark, column in zip(marks, columns, strict=True))
    return f'<h2>{title}</h2><div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _mark(column: str) -> str:
    return ' class="number"' if column in NUMBERS else ' class="wide"' if column in WIDE else ""


def _text(value: object) -> str:
    match value:
        case Html():
            return value
        case None | "":
            return "–"
        case datetime():
            return utc(value)
        case int():
            return f"{value:,}"
    return escape(one_line(redacted(str(value))))


def _code(command: str) -> Html:
    return Html(f"<code>{_text(command)}</code>" if command else "–")


def _toned(word: str, tone: str) -> Html:
    return Html(f'<span class="{tone}">{_text(word)}</span>')


def _document(title: str, refresh_s: int, about: str, *parts: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><meta http-equiv="refresh" content="{refresh_s}">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><header><h1>outbox</h1>{about}</header>{''.join(parts)}</body></html>"
    )
