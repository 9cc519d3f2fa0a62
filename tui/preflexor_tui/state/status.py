"""What is going on, in one line."""

from preflexor_agents.cli.show import VERBS
from preflexor_tui.state.run import Run


def doing(run: Run, *, loading: str, running: bool) -> str:
    """What is being done, and how to stop it; empty if nothing is."""
    if loading:
        return f"◌ {loading}"
    if not running:
        return ""
    step = run.step
    if step is None:
        return "◌ …"
    where = f" · round {run.round.number}" if run.round and run.is_open else ""
    return f"◌ {step.role} {VERBS[step.stage]}{where} · esc stops the round, twice the run"
