"""The commands that are typed into the composer: their names, what they do, how they are completed."""

import difflib
from typing import NamedTuple

from preflexor_agents.errors import InputError


class Command(NamedTuple):
    """A command."""

    name: str
    argument: str
    """What it takes, for the help; empty if nothing."""
    help: str


class Given(NamedTuple):
    """A command as it was typed."""

    name: str
    argument: str


COMMANDS = (
    Command("model", "SPEC", "the model of the next run: nano, ollama:NAME, gguf:PATH"),
    Command("role", "ROLE=SPEC", "another model for one role"),
    Command("rounds", "N", "answers written one after the other, the draft included"),
    Command("candidates", "N", "drafts to choose from in the first round"),
    Command("temperature", "T", "how freely words are drawn; 0 always takes the likeliest"),
    Command("store", "PATH", "the store to search: a file, bundled, or none"),
    Command("preset", "NAME", "default or paper"),
    Command("variant", "NAME", "critic or self"),
    Command("seed", "N", "the same seed gives the same run"),
    Command("budget_tokens", "N", "most tokens written over a run"),
    Command("budget_seconds", "S", "most seconds over a run"),
    Command("setup", "", "show what the next run is done with"),
    Command("more", "", "one more round"),
    Command("accept", "[ROUND]", "take a round's answer, whatever the gate said"),
    Command("reject", "[ROUND]", "refuse a round's answer; the one before stands"),
    Command("stop", "", "stop the run; the best answer so far stays"),
    Command("next", "TEXT", "ask this when the run is over"),
    Command("branch", "ROUND", "go on from the end of a round, as a new branch"),
    Command("edit", "", "ask the last question in other words, as a new branch"),
    Command("rewind", "", "go back to before the last question"),
    Command("retry", "", "ask the last question again, as a new branch"),
    Command("compare", "[ROUND]", "the drafts of a round side by side"),
    Command("sessions", "", "resume, search, rename, delete sessions"),
    Command("resume", "", "go on with the latest session"),
    Command("new", "", "a new session"),
    Command("rename", "NAME", "another name for this session"),
    Command("export", "FILE", "write the last run: FILE.md, FILE.json, or FILE.jsonl for a trace"),
    Command("replay", "FILE [SPEED]", "show a trace as it happened"),
    Command("copy", "", "copy the answer"),
    Command("help", "", "keys and commands"),
    Command("quit", "", "end"),
)
BY_NAME = {command.name: command for command in COMMANDS}


def parse(text: str) -> Given:
    """The command in a text that begins with a slash.

    Raises:
        InputError: there is no such command; names the nearest.
    """
    name, _, argument = text.removeprefix("/").partition(" ")
    name = name.strip().lower().replace("-", "_")
    if name not in BY_NAME:
        near = difflib.get_close_matches(name, BY_NAME, n=1)
        hint = f"did you mean /{near[0]}?" if near else "/help lists the commands"
        raise InputError(f"/{name} is no command; {hint}")
    return Given(name, argument.strip())


def matching(text: str) -> list[Command]:
    """The commands that a text which begins with a slash may become; none once an argument is typed."""
    if not text.startswith("/") or " " in text or "\n" in text:
        return []
    return [command for command in COMMANDS if command.name.startswith(text[1:].lower())]


def completed(text: str) -> str:
    """The text completed as far as it is sure."""
    found = matching(text)
    if not found:
        return text
    if len(found) == 1:
        return f"/{found[0].name} " if found[0].argument else f"/{found[0].name}"
    names = [command.name for command in found]
    common = names[0]
    while not all(name.startswith(common) for name in names):
        common = common[:-1]
    return f"/{common}"


def help_text() -> str:
    """All commands, a line each, as Markdown."""
    lines = [f"| `/{c.name}{' ' + c.argument if c.argument else ''}` | {c.help} |" for c in COMMANDS]
    return "\n".join(("| command | what it does |", "| --- | --- |", *lines))
