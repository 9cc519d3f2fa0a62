"""Hard limits of a run: generated tokens and seconds. Pure; the caller brings the clock."""

from dataclasses import dataclass
from typing import Literal

Spent = Literal["budget_tokens", "budget_seconds"]


@dataclass(frozen=True, slots=True)
class Budget:
    """What is left of a run's limits."""

    tok: int
    """Tokens that may still be generated."""
    s: float
    """Seconds that may still pass."""

    def spent(self) -> Spent | None:
        """Which limit is reached, if any; tokens are named first."""
        if self.tok <= 0:
            return "budget_tokens"
        if self.s <= 0:
            return "budget_seconds"
        return None

    def share(self, calls: int) -> int:
        """Tokens for each of `calls` calls that run side by side; at least 1."""
        return max(1, self.tok // calls)
