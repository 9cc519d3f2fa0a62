"""Two processes, the second of which fails while the first waits inside a library: run by torch.distributed.run."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from preflexor_agents.errors import TrainingError
from preflexor_training.scale import crew


def main() -> None:
    """Be one of the processes."""
    if crew.rank():
        with crew.following() as found:
            assert found.hear() == {"do": "wait", "for": "Gödel\n"}
            raise TrainingError("step 3: out of memory on rows a, b; lower batch_pairs")
    with crew.leading(lambda line: print(line, file=sys.stderr)) as found:  # noqa: T201 - in place of the command
        found.tell({"do": "wait", "for": "Gödel\n"})
        found.wait()


if __name__ == "__main__":
    main()
