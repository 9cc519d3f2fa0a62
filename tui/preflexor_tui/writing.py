"""Writes a run into a file: as a trace, as JSON, as Markdown or as HTML, by the file's name."""

import json
from collections.abc import Sequence
from pathlib import Path

from preflexor_agents.errors import InputError
from preflexor_agents.events import Timed
from preflexor_agents.report import as_markdown, report
from preflexor_agents.report_html import as_html
from preflexor_agents.trace import TraceWriter


def write_run(path: Path, events: Sequence[Timed]) -> None:
    """Write it; the file has its name only once it is whole.

    Raises:
        InputError: the file exists, cannot be written, or its name ends with nothing that is known.
    """
    if path.exists():
        raise InputError(f"{path} exists already; name another file or remove it")
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        match path.suffix:
            case ".jsonl":
                with TraceWriter(partial) as trace:
                    for t_s, event in events:
                        trace.write(event, t_s=t_s)
            case ".json":
                text = json.dumps(report(t.event for t in events), ensure_ascii=False, indent=2)
                partial.write_text(text + "\n", encoding="utf-8")
            case ".md":
                partial.write_text(as_markdown(report(t.event for t in events)), encoding="utf-8")
            case ".html":
                partial.write_text(as_html(report(t.event for t in events)), encoding="utf-8")
            case other:
                raise InputError(
                    f"{path.name!r} ends with {other or 'nothing'!r}; use .md, .html, .json or .jsonl (a trace)"
                )
        partial.replace(path)
    except OSError as e:
        raise InputError(f"can not write {path}: {e.strerror}; name a writable place") from None
    finally:
        partial.unlink(missing_ok=True)
