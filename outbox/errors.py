"""The errors that users of this project can meet, in one tree. Internal errors are in the packages that use them.

OutboxError
├── EmitError (also ValueError)      the message cannot be written as it is
│   ├── InvalidTarget                not something that a message can be written through
│   ├── InvalidEvent                 the event or one of its attributes is malformed
│   │   ├── UntypedEvent             an Event class without a type
│   │   ├── InvalidType              not words separated by dots
│   │   ├── InvalidSource            not a URI reference
│   │   ├── InvalidOrderingKey       empty, too long, or not storable text
│   │   ├── InvalidSubject           empty, too long, or not storable text
│   │   ├── InvalidHeaders           not text to text, a reserved name, or not fit for a wire
│   │   ├── InvalidId                not a UUID
│   │   │   └── DuplicateId          another message has this id
│   │   └── InvalidDelay             delay or due_at is naive, negative, too far away, or both are given
│   ├── InvalidData                  JSON cannot hold it: NaN, NUL, lone surrogates, objects of unknown types
│   │   └── TooDeep                  nested beyond the limit
│   ├── TooLarge                     over the size limit
│   └── NoTransaction                the connection commits every statement by itself
├── TransactionHeld                  a listener ended the transaction that its session is in
├── UnknownEvent                     no Event class, or more than one, is registered for a message's type
├── Unusable                         this process cannot do its work here (exit code 3)
│   ├── SettingsError                a setting is wrong, unknown or missing
│   ├── SchemaError                  the schema is missing, too old, too new, or not one of ours
│   └── ConfigurationDiffers         the registered destinations are not the configured ones
└── Reject                           raised by a listener: never try this message again
"""

from __future__ import annotations


class OutboxError(Exception):
    """The base of every error of this project."""


class EmitError(OutboxError, ValueError):
    """The message cannot be written as it is; no message was written."""


class InvalidTarget(EmitError):
    """The target is not a session or connection that a message can be written through."""


class InvalidEvent(EmitError):
    """The event or one of its attributes is malformed."""


class UntypedEvent(InvalidEvent):
    """The Event class has no type: it is a base for other events and cannot be emitted itself."""


class InvalidType(InvalidEvent):
    """The event type is not words of letters, digits, ``_`` and ``-``, separated by dots."""


class InvalidSource(InvalidEvent):
    """The source is not a URI reference."""


class InvalidOrderingKey(InvalidEvent):
    """The ordering key is empty, too long, or text that a database cannot store."""


class InvalidSubject(InvalidEvent):
    """The subject is empty, too long, or text that a database cannot store."""


class InvalidHeaders(InvalidEvent):
    """A header is not text, has a reserved name, or has a value that no wire can carry."""


class InvalidId(InvalidEvent):
    """The message id is not a UUID; or the inbox cannot store the message id or the name of the listener."""


class DuplicateId(InvalidId):
    """Another message has this id: it waits, is dead, or is in the history."""


class InvalidDelay(InvalidEvent):
    """``delay`` or ``due_at`` is naive, negative or too far away, or both are given."""


class InvalidData(EmitError):
    """The data holds a value that a JSON column cannot hold."""


class TooDeep(InvalidData):
    """The data is nested deeper than the limit."""


class TooLarge(EmitError):
    """The data is larger than the limit."""


class NoTransaction(EmitError):
    """The connection commits every statement by itself, so the result and the message would not be one transaction."""


class TransactionHeld(OutboxError):
    """A listener ended the transaction of its session. Only the caller of the listener may commit or roll it back."""


class UnknownEvent(OutboxError):
    """No Event class, or more than one, is registered for a message's type."""


class Unusable(OutboxError):
    """This process cannot do its work here; the message says why and what to run. Exit code 3."""


class SettingsError(Unusable):
    """A setting is wrong, unknown or missing."""


class SchemaError(Unusable):
    """The database's schema is missing, too old or too new for this release, or not ours."""


class ConfigurationDiffers(Unusable):
    """The configured destinations are not the registered ones."""


class Reject(OutboxError):
    """Tell the relay that this message can never be taken. A listener raises it; the message becomes a dead letter.

    Args:
        reason: The reason, for the dead letter.

    Example:
        >>> raise Reject("content c-1 does not exist")
        Traceback (most recent call last):
        outbox.errors.Reject: content c-1 does not exist
    """
