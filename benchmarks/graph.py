"""What questions to a large graph cost: 20,000 entities and 100,000 relations of skewed degrees by default."""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from preflexor_agents.graph.values import Fact, Node, Quote, Run
from preflexor_agents.store import Store

SEED = 1
QUESTIONS = 30


def main() -> None:
    """Build the graph in a new store, ask, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entities", type=int, default=20_000)
    parser.add_argument("--relations", type=int, default=100_000)
    asked = parser.parse_args()
    rng = random.Random(SEED)
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "graph.db") as store:
        began = time.perf_counter()
        build(store, asked.entities, asked.relations, rng)
        seconds = time.perf_counter() - began
        counts = store.graph.counts()
        size_mib = store.path.stat().st_size / (1 << 20)
        print(f"{counts.entities} entities, {counts.relations} relations, {size_mib:.0f} MiB")
        print(f"{counts.evidence / seconds:,.0f} facts/s written")
        print("\n| question | median ms | worst ms |\n|---|---|---|")
        for name, ask, times in questions(store, asked.entities, rng):
            print(f"| {name} | {row(ask, times)} |", flush=True)


def build(store: Store, entities: int, relations: int, rng: random.Random) -> None:
    """Every entity has a relation; most of the others go to a few."""
    store.add_finding("words", owner="benchmark")
    weights = [1 / (n + 10) for n in range(entities)]
    sources = [*range(entities), *rng.choices(range(entities), weights, k=max(0, relations - entities))]
    targets = rng.choices(range(entities), weights, k=len(sources))
    place = (Quote(chunk_id=1, start=0, end=5),)
    facts = [
        Fact(
            subject=Node(name=named(a)),
            kind=rng.choice(["causes", "has", "is"]),
            object=Node(name=named(b)),
            quotes=place,
        )
        for a, b in zip(sources, targets, strict=True)
    ]
    store.graph.add(facts, run=store.graph.begin(Run(kind="import")))


def named(number: int) -> str:
    return f"entity {number} of group {number % 97}"


def questions(store: Store, entities: int, rng: random.Random) -> list[tuple[str, Callable[[], object], int]]:
    """What is asked, how, and how often."""
    graph = store.graph
    ids = [graph.entity(named(n)).id for n in rng.sample(range(entities), min(entities, 2 * QUESTIONS))]
    hub = graph.entity(named(0)).id
    pairs = iter(list(zip(ids[::2], ids[1::2], strict=False)) * 2)
    around = iter(ids * 2)
    return [
        ("entity by name", lambda: graph.entity(named(7)), QUESTIONS),
        ("find by words", lambda: graph.find("group 17"), 5),
        ("neighbourhood, 1 hop", lambda: graph.neighbourhood(next(around)), QUESTIONS),
        ("neighbourhood, 2 hops", lambda: graph.neighbourhood(next(around), hops=2), QUESTIONS),
        ("neighbourhood of a hub, 1 hop", lambda: graph.neighbourhood(hub), 5),
        ("shortest path", lambda: graph.paths(*next(pairs), most=1), len(ids) // 2),
        ("three shortest paths", lambda: graph.paths(*next(pairs)), len(ids) // 2),
        ("300 best connected", lambda: graph.whole(limit=300), 3),
        ("whole graph with evidence", graph.whole, 1),
        ("communities", graph.communities, 1),
        ("centrality", graph.centrality, 1),
        ("merge suggestions", graph.suggest_merges, 1),
    ]


def row(ask: Callable[[], object], times: int) -> str:
    """Median and worst of so many calls."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        ask()
        taken.append((time.perf_counter() - began) * 1000)
    return f"{statistics.median(taken):.1f} | {max(taken):.1f}"


if __name__ == "__main__":
    main()
