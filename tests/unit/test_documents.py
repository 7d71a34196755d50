"""The documents name commands, options and files that exist."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from outbox_cli.app import command_line

PROJECT = Path(__file__).parents[2]
PAGES = sorted([*(PROJECT / "docs").rglob("*.md"), *PROJECT.glob("*.md")])
COMMANDS = typer.main.get_command(command_line())
SPAN = re.compile(r"(?<!`)`((?:[A-Z_]+=\S+ )*outbox [^`]+)`", re.DOTALL)
LINE = re.compile(r"^(?:    |\$ |\s+\$ )?((?:[A-Z_]+=\S+ )*(?:\S*/)?outbox .+)$", re.MULTILINE)
BLOCK = re.compile(r"^```(?:\w*)\n(.*?)^```|((?:^ {4}.*\n)+)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)#:]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_exists_with_its_options(page: Path) -> None:
    assert [f"{command}: {fault}" for command in commands_in(page.read_text()) if (fault := fault_of(command))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    assert [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()] == []


def test_the_check_sees_commands_and_finds_faults() -> None:
    found = list(commands_in((PROJECT / "docs" / "operations.md").read_text()))
    assert len(found) > 50
    assert "outbox relay --apply" in found
    assert fault_of("outbox relay --aply") == "--aply is no option of relay"
    assert fault_of("outbox dead retire") == "retire is no command"
    assert fault_of("AMQP_URL=amqp://host outbox relay && outbox consume") is None


def commands_in(text: str) -> Iterator[str]:
    """Yield the commands in code spans, and those that begin a line of a code block."""
    yield from (" ".join(found.split()) for found in SPAN.findall(text))
    for block in BLOCK.finditer(text):
        yield from LINE.findall(block[1] or block[2])


def fault_of(command: str) -> str | None:
    """Return what is wrong with a command; ``None`` if it and its options exist."""
    words = [word for word in words_of(command) if "=" not in word.partition("outbox")[0]]
    found: Any = COMMANDS
    for word in words[1:]:
        if word.startswith("-") and word != "-":
            if word.partition("=")[0] not in options_of(found):
                return f"{word} is no option of {found.name}"
        elif hasattr(found, "commands") and re.fullmatch("[a-z-]+", word):
            if word not in found.commands:
                return f"{word} is no command"
            found = found.commands[word]
    return None


def words_of(command: str) -> list[str]:
    """Return the words of the first command of a line, without brackets around optional ones."""
    first = re.split(r"\s(?:\||&&|>|<)\s", command)[0]
    try:
        return shlex.split(re.sub(r"[\[\]…]", "", first), comments=True)
    except ValueError:  # a single quotation mark in prose
        return first.split()


def options_of(command: Any) -> set[str]:
    return {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {"-h", "--help"}
