"""The command palette: every screen, every command of the chat, every key, every theme, every export."""

from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

from textual.command import DiscoveryHit, Hit, Hits, Provider

from preflexor_tui import acts, exporting, pages, slash, themes

if TYPE_CHECKING:
    from preflexor_tui.app import PreflexorApp


class Offer(NamedTuple):
    """A line of the palette."""

    name: str
    help: str
    do: Callable[[], Awaitable[None] | None]
    first: bool = True
    """Whether it is shown before anything is typed."""


class Everything(Provider):
    """All that can be done here."""

    @property
    def _app(self) -> "PreflexorApp":
        return cast("PreflexorApp", self.app)

    async def discover(self) -> Hits:
        """What to show before anything is typed."""
        for offer in self.offers():
            if offer.first:
                yield DiscoveryHit(offer.name, offer.do, help=offer.help)

    async def search(self, query: str) -> Hits:
        """What fits the words, in name or explanation."""
        matcher = self.matcher(query)
        for offer in self.offers():
            score = max(matcher.match(offer.name), matcher.match(offer.help) * 0.5)
            if score > 0:
                yield Hit(score, matcher.highlight(offer.name), offer.do, text=offer.name, help=offer.help)

    def offers(self) -> Iterator[Offer]:
        """Everything, one after the other."""
        app = self._app
        for entry in pages.ENTRIES:
            yield Offer(f"Open {entry.title}", f"{entry.help} ({entry.key})", partial(app.action_page, entry.name))
        yield from self._chat()
        for suffix, form in exporting.FORMATS.items():
            yield Offer(f"Export as {form}", f"the last run as a {suffix} file", partial(acts.export_run, app, suffix))
        yield Offer("Export as a picture", "what the screen shows, as SVG", partial(acts.export_picture, app))
        yield Offer("Copy code", "the last block of code in the answer", partial(acts.copy_code, app))
        yield Offer("Theme", "try the colours one after the other", app.search_themes)
        for name in themes.NAMES:
            yield Offer(
                f"Theme {name}", "colours; saved with the settings", partial(acts.use_theme, app, name), first=False
            )
        yield from self._bound()
        for name, help_, do, _ in app.get_system_commands(self.screen):
            if name not in ("Screenshot", "Theme"):
                yield Offer(name, help_, do)

    def _chat(self) -> Iterator[Offer]:
        app = self._app
        for command in slash.COMMANDS:
            name = f"/{command.name} {command.argument}".strip()
            yield Offer(name, command.help, partial(acts.type_command, app, command), first=False)

    def _bound(self) -> Iterator[Offer]:
        for active in self.screen.active_bindings.values():
            binding = active.binding
            if binding.id and binding.description and active.enabled:
                key = self.app.get_key_display(binding)
                run = partial(self.app.run_action, binding.action, active.node)
                yield Offer(f"{binding.description} ({key})", binding.tooltip or binding.id, _ran(run), first=False)


def _ran(run: Callable[[], Awaitable[bool]]) -> Callable[[], Awaitable[None]]:
    async def do() -> None:
        await run()

    return do
