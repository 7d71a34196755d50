"""The seam is the only way between the owning thread and the event loop.

A relay has two threads that work on the same messages. The **owning thread** (`relay.owner`) has the database session:
it reads, settles and beats. The **event loop** (`relay.delivery`) sends. Neither imports the other, and neither calls
the other: everything that passes between them is in this package.

| from → to             | what                                                            | module      |
|-----------------------|-----------------------------------------------------------------|-------------|
| owning thread → loop  | pages, settled entries, shards that come and go, answers        | `to_loop`   |
| loop → owning thread  | entries with their verdicts, requests, notes                    | `to_owner`  |
| loop → owning thread  | numbers that the owning thread reads: room, unsettled entries    | `view`      |
| owning thread → loop  | whether the relay may still send                                | `lease`     |
| both                  | a message that was read and is not settled                       | `entry`     |
| loop → owning thread  | the call that ends a sleep                                       | `bell`      |
| to the relay          | the error of a message to the loop, or of a task, that must not fail | `supervision` |

The memory model
================

There is no lock. These rules replace it. They rest on the global interpreter lock; a build of Python without that lock
gives the same guarantees for the single operations that are named here.

1. **Messages to the loop are function calls in a queue.** `posted` posts each one with ``call_soon_threadsafe``: they
   run on the loop, one after the other, in the order in which they were posted. Their arguments belong to the loop from
   then on; the owning thread does not change them any more.
2. **Messages to the owning thread are deques with one writer and one reader.** The loop appends on the right, the
   owning thread takes from the left; both are single operations of the interpreter. The owning thread reads an item
   (``queue[0]``, `front`), writes it into the database, and only then removes it, so no item is lost with a session. It
   copies with ``list(queue)``, one operation; an iterator would break when the loop appends.
3. **An entry belongs to one side at a time.** Until it has its last verdict, the loop changes it. Then it is appended
   to ``done``, ``ruled`` or ``unrouted``, and neither side changes it. When the entry is settled, `Delivery.forget`
   returns it to the loop, which removes it.
4. **The view is a snapshot.** Each property of `DeliveryView` reads integers, or copies a collection in one operation.
   It may be old when it is used, and the owning thread must be correct even then: if the room for a page is used up,
   the page is parked; if a hand-over counts too many entries, it waits for the next turn.
5. **The lease is four values with one writer each.** The owning thread writes the session's number, the time of its
   last round trip and the difference between the clocks; the loop writes the number that has reached it; `Lease.end`
   may be called by either. A reader that sees an old value starts nothing, or starts within the time that the old
   value still allows.
6. **No wake-up is lost.** The owning thread sets its flag for sleep, and only then checks for work; the loop appends
   work, and only then checks that flag. So at least one of the two sees the other.
"""

from relay.seam.bell import Bell
from relay.seam.entry import Entry, Handle, Route
from relay.seam.lease import Lease
from relay.seam.to_loop import Crashes, Delivery, OwnerEvents, Post, posted, posting_to
from relay.seam.to_owner import Claim, Note, PermitRequest, Probe, ToOwner, Withdrawn, front
from relay.seam.view import DeliveryView, OwnersSeam

__all__ = [
    "Bell",
    "Claim",
    "Crashes",
    "Delivery",
    "DeliveryView",
    "Entry",
    "Handle",
    "Lease",
    "Note",
    "OwnerEvents",
    "OwnersSeam",
    "PermitRequest",
    "Post",
    "Probe",
    "Route",
    "ToOwner",
    "Withdrawn",
    "front",
    "posted",
    "posting_to",
]
