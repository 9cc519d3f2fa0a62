"""How a model's chat template writes turns, found out by rendering it; it need not be of any known name.

A template that writes every turn as fixed text around its content, as ChatML, Llama 3, Mistral, Gemma, Phi and our own
do, can be said in these few strings. What was found is checked against the template on longer chats.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from preflexor_agents.backends.template import FAILURES, ChatTemplate, hide, spans_of
from preflexor_agents.errors import ModelError
from preflexor_agents.prompts import Message

CHATS = ("u", "su", "uau", "suau", "uauau", "suauau")
"""Roles of the chats that what was found is checked on."""
_ROLES: dict[str, Literal["system", "user", "assistant"]] = {"s": "system", "u": "user", "a": "assistant"}


Fold = Literal["no", "next", "last"]


class Turn(NamedTuple):
    """Text around a content."""

    open: str
    close: str


class TurnFormat(NamedTuple):
    """A chat template as fixed texts."""

    bos: str
    """What the template itself writes before everything, if that is the token that begins a text."""
    without_system: str
    """What stands before the first turn when no system turn does."""
    system: Turn
    folds_system: Fold
    """Whether the system's text goes into the next or the last user turn, inside that turn's opening."""
    user: Turn
    assistant: Turn
    reply: str
    """What the reply follows."""
    quiet_reply: str
    """The same when thinking is switched off; equal where the template has no such switch."""
    keeps_thinking: bool
    """Whether thinking in earlier replies is shown."""

    def render(self, roles: str, contents: Sequence[str]) -> str:
        """A chat as text, up to where the reply begins, or to the end of a last assistant turn's content."""
        parts = [self.bos, "" if roles.startswith("s") else self.without_system]
        held = ""
        for n, (role, content) in enumerate(zip(roles, contents, strict=True)):
            if role == "s" and self.folds_system != "no":
                held = self.system.open + content + self.system.close
            elif role == "s":
                parts += [self.system.open, content, self.system.close]
            elif role == "u":
                here = self.folds_system == "next" or n >= roles.rindex("u")
                parts += [self.user.open, held if here else "", content, self.user.close]
                held = "" if here else held
            else:
                parts += [self.assistant.open, content, self.assistant.close if n < len(roles) - 1 else ""]
        return "".join(parts) + ("" if roles.endswith("a") else self.reply)


def turn_format(template: ChatTemplate, *, bos: str, eos: str) -> TurnFormat:
    """Find the texts that a template writes.

    Args:
        template: the model's.
        bos: text of the token that begins a text; may be empty.
        eos: text of the token that ends one, which some templates put behind a chat that is over.

    Raises:
        ModelError: the template does not write turns as fixed text around their contents.
    """
    before, asked = _gaps(template, "u")
    _, answered, again, last = _gaps(template, "uau")
    ended = _ending(_gaps(template, "u", reply=False)[-1], eos, answered)
    closed = _ending(_gaps(template, "ua", reply=False)[-1], eos, again)
    quiet = _gaps(template, "u", thinking=False)[-1]
    user = Turn(_cut(again, closed), ended)
    assistant = Turn(_cut(answered, ended), closed)
    if bos and user.open.startswith(bos):
        user, assistant = Turn(user.open.removeprefix(bos), ended), Turn(assistant.open, closed + bos)
    own_bos = bos if bos and before.startswith(bos) else ""
    if not before.endswith(user.open) or last != asked:
        raise _irregular("its first user turn is unlike the later ones")
    system, folds = _system(template, own_bos, user)
    found = TurnFormat(
        bos=own_bos,
        without_system=before.removeprefix(own_bos).removesuffix(user.open),
        system=system,
        folds_system="no",
        user=user,
        assistant=assistant,
        reply=_cut(asked, ended),
        quiet_reply=_cut(quiet, ended),
        keeps_thinking=_keeps_thinking(template),
    )
    places: tuple[Fold, ...] = ("next", "last") if folds else ("no",)
    for place in places:
        placed = found._replace(folds_system=place)
        if all(_agrees(template, placed, roles) for roles in CHATS):
            return placed
    raise _irregular("long chats do not follow from short ones")


def _agrees(template: ChatTemplate, found: TurnFormat, roles: str) -> bool:
    contents = [f"text {n}" for n in range(len(roles))]
    messages = [Message(_ROLES[role], content) for role, content in zip(roles, contents, strict=True)]
    return found.render(roles, contents) == "".join(span.text for span in template.render(messages))


def _gaps(
    template: ChatTemplate,
    roles: str,
    *,
    reply: bool = True,
    thinking: bool = True,
) -> list[str]:
    """The template's text before, between and after the contents of a chat. Raises ModelError."""
    contents = [f"text {n}" for n in range(len(roles))]
    why = "it leaves out or reorders what is said"
    for wrap, tools in ((str, None), (_as_part, None), (str, [])):
        turns = [
            {"role": _ROLES[role], "content": wrap(hide(n, content))}
            for n, (role, content) in enumerate(zip(roles, contents, strict=True))
        ]
        try:
            text = template.fill(turns, tools=tools, thinking=thinking, open_reply=reply)
        except FAILURES as e:
            why = " ".join(str(e).split())[:120] or type(e).__name__
            continue
        gaps = _between(spans_of(text, contents) or (), contents)
        if gaps is not None:
            return gaps
    if roles.startswith("su"):  # as our own rendering does where a template takes no system turn
        first, *others = _gaps(template, roles[1:], reply=reply, thinking=thinking)
        return [first, "\n\n", *others]
    raise _irregular(why)


def _as_part(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def _between(spans: Sequence[tuple[str, bool]], contents: Sequence[str]) -> list[str] | None:
    gaps, left = [""], list(contents)
    for text, trusted in spans:
        if trusted:
            gaps[-1] += text
        elif left and text == left.pop(0):
            gaps.append("")
        else:
            return None
    return None if left else gaps


def _system(template: ChatTemplate, bos: str, user: Turn) -> tuple[Turn, bool]:
    opened, closed, *_ = _gaps(template, "su")
    if user.open and closed.endswith(user.open):
        return Turn(opened.removeprefix(bos), closed.removesuffix(user.open)), False
    if opened.startswith(bos + user.open):
        return Turn(opened.removeprefix(bos + user.open), closed), True
    raise _irregular("it mixes the system's text with the user's turn")


def _keeps_thinking(template: ChatTemplate) -> bool:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "<think>\nqz\n</think>\n\nb"}, {}]
    turns[2] = turns[0]
    try:
        return "qz" in template.fill(turns, tools=None, thinking=True)
    except FAILURES:
        return True


def _ending(text: str, eos: str, followed: str) -> str:
    """The end of a turn, seen where it is the last one; `followed` is what stands after it where it is not."""
    return text if followed.startswith(text) else text.removesuffix(eos)


def _cut(text: str, start: str) -> str:
    if not text.startswith(start):
        raise _irregular("the end of a turn changes with what follows it")
    return text.removeprefix(start)


def _irregular(why: str) -> ModelError:
    return ModelError(
        f"no Modelfile can be derived from the model's chat template ({why}); give Ollama's form of it with"
        " --template FILE"
    )
