"""From the bytes of a file to text that can be stored and cited: one module for each format.

For plug-ins (entry points of the group `preflexor.formats`) the public names are `Parsed`, `Page` and `from_markdown`;
docs/ingest.md says what a plug-in has to offer.
"""

from preflexor_agents.store.reading.markdown import from_markdown
from preflexor_agents.store.reading.parsed import Page, Parsed

__all__ = ["Page", "Parsed", "from_markdown"]
