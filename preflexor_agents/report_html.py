"""A run as one HTML file that needs nothing else: no script, no address, nothing of it can act or be fetched."""

import re
from collections.abc import Iterable
from html import escape
from typing import Any

from markdown_it import MarkdownIt

_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
"""Control characters, marks that turn the direction of text around, and what is no character."""
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["image", "link", "autolink"])
_SECTIONS = (("critique", "Critique"), ("thinking", "Thinking"), ("reflection", "Reflection"), ("answer", "Answer"))
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root { color-scheme: light dark; --text: #1d2429; --soft: #5b6770; --page: #fbfaf7; --card: #fff; --line: #dcdad2;
  --accent: #0f6b70; --kept: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --text: #d8dee4; --soft: #93a0aa; --page: #14181c; --card: #1b2126;
  --line: #303940; --accent: #6cc0c0; --kept: #e0b060; } }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 46rem; background: var(--page); color: var(--text);
  font: 1.0625rem/1.6 Georgia, "Times New Roman", serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; white-space: pre-wrap; }
h2 { margin: 2.5rem 0 .75rem; font-size: 1.1rem; }
details { margin: .6rem 0; border: 1px solid var(--line); border-radius: 6px; background: var(--card); }
summary { padding: .55rem .9rem; cursor: pointer; font-weight: bold; }
summary span { font-weight: normal; color: var(--soft); }
details > div { padding: 0 .9rem .9rem; }
.verdict { color: var(--accent); } .verdict.kept { color: var(--kept); }
.text { white-space: pre-wrap; margin: 0; } .soft { color: var(--soft); font-size: .9rem; }
h3 { margin: 1rem 0 .25rem; font-size: .85rem; letter-spacing: .04em; text-transform: uppercase; color: var(--soft); }
blockquote { margin: .25rem 0; padding-left: .9rem; border-left: 3px solid var(--accent); white-space: pre-wrap; }
pre, code { font-size: .9em; } pre { overflow-x: auto; } p, td, li, h1, .text, blockquote { unicode-bidi: plaintext; }
table { border-collapse: collapse; } td, th { border: 1px solid var(--line); padding: .2rem .6rem; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: .75rem; }
@media print { details:not([open]) > div { display: block; } body { max-width: none; } }
"""


def as_html(result: dict[str, Any]) -> str:
    """The report (see `preflexor_agents.report.report`) as an HTML document."""
    body = "\n".join(_body(result))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_safe(_short(result['question']))}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n"
        "</body>\n</html>\n"
    )


def _body(result: dict[str, Any]) -> Iterable[str]:
    yield f"<h1>{_safe(result['question'])}</h1>"
    yield f"<main>{_MARKDOWN.render(_visible(result['answer'])) or '<p>(no answer)</p>'}</main>"
    if result["error"]:
        yield f'<p class="verdict kept">Failed: {_safe(result["error"])}</p>'
    if result["citations"]:
        yield "<h2>Citations</h2>"
        yield from map(_citation, result["citations"])
    if result["unsupported"]:
        yield "<h2>No passage supports</h2><ul>"
        yield from (f"<li>{_safe(claim)}</li>" for claim in result["unsupported"])
        yield "</ul>"
    yield "<h2>Rounds</h2>"
    yield from map(_round, result["rounds"])
    usage = result["usage"]
    yield (
        f'<footer class="soft">Model {_safe(result["model"])}, seed {result["seed"]}, preset '
        f"{_safe(result['preset'])}; {usage['calls']} calls, {usage['generated']} tokens written, "
        f"{usage['seconds']:.1f} s; ended: {_safe(result['stop_reason'])}. Made by preflexor.</footer>"
    )


def _citation(c: dict[str, Any]) -> str:
    page = f", page {c['page']}" if c["page"] is not None else ""
    return (
        f"<details open><summary>[{c['number']}] {_safe(c['title'])} <span>{_safe(c['source'])}{page}</span></summary>"
        f'<div><blockquote>{_safe(c["quote"])}</blockquote><p class="soft">for: {_safe(c["claim"])}</p></div></details>'
    )


def _round(r: dict[str, Any]) -> str:
    verdict, kind = ("taken", "verdict") if r["accepted"] else ("the answer before was kept", "verdict kept")
    score = "" if r["score"] is None else f", score {r['score']:.2f}"
    told = "".join(f'<p class="soft">You added: {_safe(words)}</p>' for words in r["steering"])
    texts = "".join(
        f'<h3>{name}</h3><p class="text">{_safe(r[key].strip())}</p>' for key, name in _SECTIONS if r[key].strip()
    )
    return (
        f'<details><summary>Round {r["round"]}: <span class="{kind}">{verdict}{score}</span> '
        f"<span>{r['tokens_generated']} tokens, {r['seconds']:.1f} s</span></summary>"
        f'<div><p class="soft">{_safe(r["reason"])}</p>{told}{texts}</div></details>'
    )


def _visible(text: str) -> str:
    return _UNSEEN.sub("\ufffd", text)


def _safe(text: str) -> str:
    return escape(_visible(text))


def _short(text: str, longest: int = 90) -> str:
    line = " ".join(text.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"
