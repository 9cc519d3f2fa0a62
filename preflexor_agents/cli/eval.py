"""`preflexor eval`: measure models and protocols on questions with known answers, and compare them."""

from preflexor_agents.cli.groups import lazy_group

EXAMPLE = """
\b
Example:
  preflexor eval run library --system nano::think --system nano::default --out runs/eval
  preflexor eval run questions.jsonl --system base=ollama:qwen3:4b::think --system tuned=gguf:tuned.gguf::think
  preflexor eval show runs/eval
  preflexor eval compare runs/eval runs/eval-2
"""
HOMES = {"run": "eval_run", "show": "eval_show", "compare": "eval_show", "protocols": "eval_show"}
"""Command -> the module of this package in which it is, as `NAME_command`; in the order of the help."""


@lazy_group(HOMES, short_help="Measure models and protocols, and compare them.", epilog=EXAMPLE)
def command() -> None:
    """Ask questions with known answers, and say how many are right, how sure that is, and what it costs.

    Answers are judged alone, never their thinking. Every result is kept as it comes; the same command goes on where it
    was broken off.
    """
