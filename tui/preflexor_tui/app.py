"""The terminal UI: modes, screens, themes, keys. No logic of its own."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.command import Provider
from textual.screen import Screen

from preflexor_agents.events import Timed
from preflexor_tui import pages, themes
from preflexor_tui.conversation import Conversation
from preflexor_tui.engine import Engine
from preflexor_tui.journal import Journal
from preflexor_tui.screens import chat_acts
from preflexor_tui.screens.chat import ChatScreen
from preflexor_tui.setup import Setup


def _everything() -> type[Provider]:
    from preflexor_tui.commands import Everything

    return Everything


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A trace to be shown."""

    events: list[Timed]
    speed: float


class PreflexorApp(App[None]):
    """Everything that can be seen."""

    TITLE = "preflexor"
    CSS_PATH = "app.tcss"
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f1", "chat_help", "Help", id="app.help"),
        Binding("ctrl+q", "quit", "Quit", id="app.quit", show=False, priority=True),
        *(Binding(e.key, f"page('{e.name}')", e.title, id=f"app.{e.name}", show=False) for e in pages.ENTRIES),
    ]
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {_everything}
    SCREENS: ClassVar[dict[str, Callable[[], Screen[object]]]] = {}

    def __init__(
        self,
        *,
        setup: Setup,
        engine: Engine | None = None,
        sessions: Path | None = None,
        question: str = "",
        resumed: bool = False,
        replay: Replay | None = None,
        theme: str = themes.DEFAULT,
        keys: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare; nothing is opened before the first picture is on the screen.

        Args:
            setup: what runs are done with until the user changes it.
            engine: opens models and stores.
            sessions: the store in which conversations are kept. Default: nothing is kept.
            question: asked at once, if any.
            resumed: whether the latest session is shown.
            replay: a trace to show at once, if any.
            theme: name of a theme.
            keys: id of a binding -> keys, as `keymap` checked them.
            clock: seconds, for what is shown of a run's time.
        """
        super().__init__()
        self.setup = setup
        self.engine = engine or Engine()
        self.journal = Journal(sessions)
        self.clock = clock
        self._question, self._resumed, self._replay = question, resumed, replay
        for ours in themes.OURS:
            self.register_theme(ours)
        self.theme = theme
        self.set_keymap(dict(keys or {}))

    @property
    def store_name(self) -> str:
        """The file name of the store that is searched; empty if none is."""
        store = self.engine.store
        return store.path.name if store is not None else ""

    @property
    def chat(self) -> ChatScreen:
        """The conversation."""
        return next(screen for screen in self.screen_stack if isinstance(screen, ChatScreen))

    def get_default_screen(self) -> ChatScreen:
        """The chat is what everything else lies on."""
        return ChatScreen(Conversation(self.journal))

    def began(self) -> None:
        """The first picture is on the screen: load the model, or do what was asked for at the start."""
        self.app_focus = True  # in a browser Textual begins without focus, and shows no keys then
        if self._replay is not None:
            chat_acts.replay(self.chat, self._replay.events, speed=self._replay.speed)
        elif self._question:
            chat_acts.ask(self.chat, self._question)
        else:
            self.chat.load_model()
        if self._resumed:
            self.chat.act("resume")

    def action_chat_help(self) -> None:
        """Keys and commands."""
        from preflexor_tui.screens.chat_help import ChatHelp

        self.push_screen(ChatHelp())

    def action_page(self, name: str) -> None:
        """Open one of the screens beside the chat."""
        pages.show(self, name)

    async def action_quit(self) -> None:
        """End; a run that is going is stopped, everything is saved, what is typed is kept."""
        await self.chat.leave()
        self.exit()

    async def on_unmount(self) -> None:
        """Let go of models and stores."""
        await self.engine.close()
        await self.journal.close()
