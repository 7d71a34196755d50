"""Find out which delivery killed its relay.

A listener may call `os._exit`, cause a segmentation fault, or block its event loop for ever. The relay ends and cannot
report the cause; the only sign is a shard that was not handed back. A crash by itself proves nothing: operators,
kernels and power cuts kill relays, too, and that must not cost any message an attempt. So suspicion charges nothing,
and is dropped when it proves wrong:

    not watched    ──a relay dies──► watched: what could have been in its hands is noted in `outbox_shard.started`
                                        │      before it is sent, as many at once as ever
                                        │
                                a relay dies again
                                        ▼
                                     accused: what was noted then waits for a backoff, while everything else goes
                                        │     on, and is then tried alone: with nothing else under way
                  it is tried ◄─────────┤
              and the relay lives:      │ a relay dies again, with nothing but this one under way
              free, nothing charged     ▼
                                     convicted, once as many relays have died of it as it has attempts: a dead letter.
                                     Until then it waits for its next, longer backoff.

The first crash counts against every delivery that is accused after the second crash: that delivery was not noted at the
first crash, but may have been under way. So with `max_attempts = 3`, three crashes make a dead letter, and never fewer,
because only a trial convicts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import datetime

Delivery = tuple[str, str]  # (message, destination)

UNSEEN = 1  # counts the first crash, before which nothing was noted


@dataclass(frozen=True, slots=True)
class Accused:
    """A delivery that was under way when a relay died.

    Args:
        crashes: How many relays in a row died while it was under way, including the first one, when nothing was noted
            yet.
        alone: Whether no other attempt was under way when one of them died.
        rested: Whether it has waited for its backoff since then.
    """

    crashes: int
    alone: bool = False
    rested: bool = False

    def is_convicted(self, attempts: int, max_attempts: int) -> bool:
        """Return whether it has used up its attempts; `attempts` were charged for other failures."""
        return self.alone and attempts + self.crashes >= max_attempts


@dataclass(slots=True)
class Record:
    """The content of ``outbox_shard.started`` for one shard.

    Args:
        until: For a watched shard: when its last owner lost it. No message that was written later can have been under
            way.
        accused: The deliveries that were under way when a former owner died.
        started: The watched or accused deliveries that are under way now.
        is_alone: Whether `started` holds the only attempt that is under way in the whole relay.
    """

    until: datetime | None = None
    accused: dict[Delivery, Accused] = field(default_factory=dict)
    started: set[Delivery] = field(default_factory=set)
    is_alone: bool = False

    @classmethod
    def parse(cls, text: str | None) -> Record:
        """Return the record in this text; an empty record if there is none, because the text was edited by hand."""
        if text is None:
            return cls()
        try:
            stored = json.loads(text)
            return cls(
                datetime.fromisoformat(stored["until"]) if stored["until"] else None,
                {(id_, destination): Accused(*rest) for id_, destination, *rest in stored["accused"]},
                {(id_, destination) for id_, destination in stored["started"]},
                stored["alone"],
            )
        except (LookupError, TypeError, ValueError):
            return cls()

    def dump(self) -> str | None:
        """Return the record as JSON; ``None`` if it is empty."""
        if self.is_empty:
            return None
        until = self.until.isoformat() if self.until is not None else None
        accused = [[*delivery, a.crashes, a.alone, a.rested] for delivery, a in sorted(self.accused.items())]
        return json.dumps({"until": until, "accused": accused, "started": sorted(self.started), "alone": self.is_alone})

    @property
    def is_empty(self) -> bool:
        return self.until is None and not self.accused and not self.started

    @property
    def ids(self) -> set[str]:
        """The ids of its messages."""
        return {id_ for id_, _ in (*self.accused, *self.started)}

    def after_crash(self) -> dict[Delivery, Accused]:
        """Return the deliveries that are accused after the owner died: those accused before, and those under way."""
        accused = dict(self.accused)
        for delivery in self.started:
            known = accused.get(delivery, Accused(UNSEEN))
            accused[delivery] = replace(
                known, crashes=known.crashes + 1, alone=known.alone or self.is_alone, rested=False
            )
        return accused
