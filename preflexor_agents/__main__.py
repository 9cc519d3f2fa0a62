"""`python -m preflexor_agents` is `preflexor`."""

from preflexor_agents.cli.main import main

main()
