"""How large a graph the HTML explorer carries: size of the page, time to write and to open it, frames a second.

Frames are counted while the layout settles and while the picture is moved, in headless Chromium, drawn without a GPU.
"""

import argparse
import random
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from preflexor_agents.graph import explorer
from preflexor_agents.graph.values import Entity, Evidence, Graph, Relation, Run
from tests.store.chromium import BROWSER, Page, browser

SIZES = ((500, 1500), (5000, 15_000))
FRAMES_S = 2
FRAMES = """new Promise(done => {
    const canvas = document.getElementById("canvas");
    const start = performance.now();
    let [last, worst, count] = [start, 0, 0];
    const frame = () => {
        const now = performance.now();
        worst = Math.max(worst, now - last);
        last = now;
        count += 1;
        if (MOVE) canvas.dispatchEvent(new KeyboardEvent("keydown", { key: count % 2 ? "ArrowLeft" : "ArrowRight" }));
        if (now - start > SECONDS * 1000) done([count / SECONDS, worst]);
        else requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
})"""
REST = """new Promise(done => {
    const look = setInterval(() => {
        if (document.documentElement.dataset.layout !== "done") return;
        clearInterval(look);
        done(performance.now());
    }, 20);
})"""


class Frames(NamedTuple):
    """What was drawn in a while."""

    per_s: float
    worst_ms: float


def graph(entities: int, relations: int) -> Graph:
    """A graph in twelve clusters, with a few hubs and one or two quotes for each relation."""
    rng = random.Random(7)
    runs = [Run(id=n, kind="extract", started_at=f"2026-01-{n:02}T00:00:00+00:00") for n in range(1, 13)]
    nodes = tuple(Entity(id=n, name=f"entity {n}", type=f"type {n % 9}") for n in range(entities))
    edges = []
    evidence: dict[int, tuple[Evidence, ...]] = {}
    for n in range(relations):
        source = int(entities * rng.random() ** 2)
        target = (
            (source + 12 * rng.randrange(entities // 12)) % entities if rng.random() < 0.9 else rng.randrange(entities)
        )
        edges.append(Relation(id=n, source=source, kind=f"kind {n % 30}", target=target))
        evidence[n] = tuple(_quote(n, rng.choice(runs)) for _ in range(rng.randrange(1, 3)))
    return Graph(entities=nodes, relations=tuple(edges), evidence=evidence)


def _quote(relation: int, run: Run) -> Evidence:
    words = f"In sentence {relation} of the text it is said that the one has to do with the other."
    place = {"source": "paper.pdf", "title": "A paper", "page": 1, "start": relation, "end": relation + len(words)}
    return Evidence(relation_id=relation, chunk_id=1, quote=words, run=run, **place)  # type: ignore[arg-type]


def frames(page: Page, *, move: bool) -> Frames:
    """Count frames for a while, moving the picture at each or letting it be."""
    return Frames(*page.evaluate(FRAMES.replace("MOVE", str(move).lower()).replace("SECONDS", str(FRAMES_S))))


def main() -> None:
    """Print a row for each size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", metavar="ENTITIES:RELATIONS", help="default: 500:1500 and 5000:15000")
    given = [tuple(map(int, size.split(":"))) for size in parser.parse_args().sizes]
    if BROWSER is None:
        print("no Chromium or Chrome is installed; there is nothing to measure with")
        return
    print("entities relations    MB  write s  open s  rest s  settling fps  worst ms  moving fps  worst ms")
    with tempfile.TemporaryDirectory() as folder, browser(Path(folder) / "profile") as page:
        for entities, relations in given or SIZES:
            file = Path(folder) / "graph.html"
            whole = graph(entities, relations)
            began = time.perf_counter()
            file.write_text(explorer.write(whole, title="Benchmark"), encoding="utf-8")
            written_s = time.perf_counter() - began
            began = time.perf_counter()
            page.open(file)
            opened_s = time.perf_counter() - began
            settling = frames(page, move=False)
            rest_s = page.evaluate(REST) / 1000
            moving = frames(page, move=True)
            size_mb = file.stat().st_size / 1e6
            print(
                f"{entities:8} {relations:9} {size_mb:5.1f} {written_s:8.2f} {opened_s:7.2f} {rest_s:7.1f} "
                f"{settling.per_s:13.0f} {settling.worst_ms:9.0f} {moving.per_s:11.0f} {moving.worst_ms:9.0f}"
            )


if __name__ == "__main__":
    main()
