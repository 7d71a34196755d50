"""Public names are made of words that the glossary explains, or that every programmer knows."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from support.sources import PACKAGES, ROOT, facts_of, sources_of

from outbox_cli.app import MODULES
from relay.databases import names as databases
from relay.destinations.registry import OURS

pytestmark = pytest.mark.xdist_group("sources")

WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")
ENDINGS = ("s", "es", "d", "ed", "ing", "er", "or", "ion", "ation", "able")

# Words that need no explanation, in the singular and without an ending. A word of our domain goes into the glossary.
COMMON = set(
    """
    access act address admin amqp answer any app array assembly attributes base batch big binary body build busy
    cached call cancel candidate captured capturing cause change channel checks choice circuit cli clients
    closable cloudevents code columns commands common completed config configuration connection connector consume
    contract count creators data database deadlock decide deep definitions delay demo detail differs discard document
    done drawing duplicate durations echo edge edit emptying entrance engines environment error event examination
    executor exits extracted facts failure file filter fixed floors form found frames full grants guide headers
    histogram http id ids implied in incoming inheriting instant int invalid job json kafka label large
    libpq life line listing lists loading log long look lost many marker masking meta
    metrics migration model much multiline naming network next no node not observe opening
    options output overran overview own pace packages partitions payload pending people person plan platform
    pool postgres postgresql prepared problem process promise prompts properties prose protocol publishing queries
    question queue rabbit readiness ready reason refused registered registry reject rendering
    replication report request retry returned right risk row run search selection sending series serve
    servers settings shares shutdown side signature signing site skip something source sql sqlite started startup
    status steps subject success supervision swept tables target terminal tested testing text
    to tokens tolerant too trace transaction transport tries tx type unavailable units unknown
    unsupported untyped unusable url verifier view waiting waking watcher withdrawn work world write writing xid
    """.split()  # noqa: SIM905
)


def test_every_word_of_a_public_name_is_explained_or_common() -> None:
    known = explained() | COMMON | listed()
    unknown = {f"{word} ({name})" for name in public_names() for word in words_of(name) if not is_known(word, known)}
    assert unknown == set(), "explain the word in docs/glossary.md, or use the field's word"


def test_no_common_word_is_left_that_no_name_has() -> None:
    used = {stem for name in public_names() for word in words_of(name) for stem in stems(word)}
    assert used >= COMMON


def test_the_check_finds_a_word_that_is_not_explained() -> None:
    assert not is_known("tenure", explained() | COMMON)
    assert is_known("settling", explained())


def explained() -> set[str]:
    """Return the words of the glossary."""
    rows = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    return {word for row in rows for word in row.lower().split()}


def listed() -> set[str]:
    """Return the names of the commands, which the help explains, and of the kinds of destinations and databases."""
    commands = {word for names in MODULES.values() for name in names for word in words_of(name)}
    return {*commands, *OURS, *databases()}


@cache
def public_names() -> set[str]:
    """Return the names of the modules, packages and public classes."""
    return {name for package in PACKAGES for path in sources_of(package) for name in names_in(path)}


def names_in(path: Path) -> Iterator[str]:
    yield path.parent.name if path.name == "__init__.py" else path.stem
    yield from facts_of(path).classes


def words_of(name: str) -> list[str]:
    """Return the words of a public name, in lower case."""
    return [] if name.startswith("_") else [word.lower() for word in WORDS.findall(name)]


def stems(word: str) -> Iterator[str]:
    """Return what a word may be a form of: emitted → emit, closable → close, retries → retry."""
    yield word
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) > len(ending) + 2:
            stem = word.removesuffix(ending)
            yield from (stem, stem + "e", stem + "y")
            if stem.endswith("i"):
                yield stem[:-1] + "y"
            if stem[-1] == stem[-2]:
                yield stem[:-1]


def is_known(word: str, known: set[str]) -> bool:
    return any(stem in known for stem in stems(word))
