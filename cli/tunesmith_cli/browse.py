"""Commands that list, filter and show the entries of a catalogue: `tunesmith models`, `tunesmith datasets`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

import click

from tunesmith_api.catalogue.entries import HUBS, Entry
from tunesmith_api.catalogue.nearest import nearest
from tunesmith_cli.tables import OUTPUTS, as_json, output_option, print_fields, print_json, print_table

E = TypeVar("E", bound=Entry)
Columns = Mapping[str, Callable[[E], str]]
LIST = "list"


class DefaultGroup(click.Group):
    """A group whose command `list` may be left out."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `list` before arguments that begin with no command."""
        return super().parse_args(ctx, args if args and args[0] in self.commands else [LIST, *args])


@dataclass(frozen=True)
class Browser(Generic[E]):
    """How the entries of one sort are found and shown."""

    noun: str
    entries: Callable[[], Mapping[str, E]]
    table: Columns[E]
    """Header of a column -> its value."""
    wide: Columns[E]
    """Further columns with --output wide."""
    usage: Callable[[E], str]
    """The YAML that uses an entry."""

    def search(self, words: Iterable[str], output: str, **filters: str | None) -> None:
        """Print the entries that have all words and pass all filters. Exits with 1 if there are none."""
        wanted = {name: value for name, value in filters.items() if value}
        found = [
            entry
            for entry in self.entries().values()
            if all(word.lower() in _text(entry) for word in words)
            and all(_passes(entry, *each) for each in wanted.items())
        ]
        if output == "json":
            print_json([as_json(entry) for entry in found])
        elif found:
            columns = {**self.table, **(self.wide if output == "wide" else {})}
            print_table([*columns], [[value(entry) for value in columns.values()] for entry in found])
        if not found:
            self._nothing(" ".join(words), bool(wanted))

    def show(self, name: str, output: str) -> None:
        """Print an entry. Exits with 1 if there is none of that name."""
        entry = self.entries().get(name)
        if entry is None:
            self._nothing(name, False)
        if output == "json":
            print_json(as_json(entry))
            return
        columns = {**self.table, **self.wide}
        print_fields({header.lower(): value(entry) for header, value in columns.items()} | {"use": self.usage(entry)})

    def _nothing(self, name: str, filtered: bool) -> NoReturn:
        click.echo(f"no {self.noun} {name!r}{' with these options' if filtered else ''} in the catalogue", err=True)
        if name:
            click.echo(f"the nearest names: {', '.join(nearest(name, self.entries()))}", err=True)
        raise SystemExit(1)


def _text(entry: Entry) -> str:
    """Where words are searched."""
    family = getattr(entry, "family", "")
    return " ".join((entry.name, entry.huggingface or "", entry.modelscope or "", family, *entry.tags)).lower()


def _passes(entry: Entry, name: str, value: str) -> bool:
    return value in entry.hubs if name == "hub" else getattr(entry, name) == value


def group(browser: Browser[Any], name: str, help_: str, *options: Callable[[Any], Any]) -> click.Group:
    """Return the command with its subcommands list and show. `options` filter the list."""
    commands = DefaultGroup(name, help=help_)

    @click.argument("search", nargs=-1)
    @click.option("--hub", type=click.Choice([*HUBS]), help="Only those that this hub has.")
    @output_option
    def listed(search: tuple[str, ...], output: str, **filters: str | None) -> None:
        browser.search(search, output, **filters)

    for option in reversed(options):
        listed = option(listed)
    listed.__doc__ = f"{help_}\n\nSEARCH: words of the name, the ids, the family or the tags. `tunesmith {name} show NAME` shows one."
    commands.add_command(click.command(LIST)(listed))

    @commands.command("show")
    @click.argument("name")
    @click.option(
        "-o", "--output", type=click.Choice([OUTPUTS[0], OUTPUTS[2]]), default=OUTPUTS[0], help="Default: table."
    )
    def show(name: str, output: str) -> None:
        """Show one, with what to write to use it."""
        browser.show(name, output)

    return commands
