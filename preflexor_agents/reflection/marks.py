"""Puts checked citation marks into an answer, in place of those that the model wrote."""

import re

from preflexor_agents.events import Cited

_MARKS = re.compile(r"\s*\[\d+(?:\s*[,\u2013-]\s*\d+)*\]")
_END = re.compile(r"[.!?:;\s]*$")


def marked(answer: str, cited: Cited) -> str:
    """The answer with `[n]` behind each sentence that passage n supports, and no mark that was not checked."""
    numbers: dict[str, set[int]] = {claim: set() for claim in cited.unsupported}
    for citation in cited.citations:
        numbers.setdefault(citation.claim, set()).add(citation.number)
    for claim, found in numbers.items():
        bare = _MARKS.sub("", claim)
        end = _END.search(bare)
        at = end.start() if end else len(bare)
        marks = "".join(f" [{n}]" for n in sorted(found))
        answer = answer.replace(claim, bare[:at] + marks + bare[at:])
    return answer
