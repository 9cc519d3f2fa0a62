"""`preflexor forge`: make preference data from documents, and look at them."""

from preflexor_agents.cli.groups import lazy_group

EXAMPLE = """
\b
Example:
  preflexor forge run --teacher ollama:qwen3:4b --student ollama:llama3.2:3b --rows 200 --out data/
  preflexor forge show data/
  preflexor forge export data/ pairs.parquet
"""
HOMES = {
    "run": "forge_run",
    "show": "forge_data",
    "stats": "forge_data",
    "export": "forge_data",
    "import": "forge_data",
}
"""Command -> the module of this package in which it is, as `NAME_command`; in the order of the help."""


@lazy_group(HOMES, short_help="Make preference data from documents, and look at them.", epilog=EXAMPLE)
def command() -> None:
    """Make preference data from your documents: a question, the thinking, a good answer, and one it must beat.

    A teacher writes the good side from passages of the knowledge store, a student tries by itself. `preflexor train`
    learns from what comes out.
    """
