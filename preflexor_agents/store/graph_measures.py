"""What the whole graph says: which entities belong together, and which matter most."""

from sqlite_utils import Database

from preflexor_agents.errors import ConfigError
from preflexor_agents.graph import louvain


def communities(db: Database) -> list[tuple[int, ...]]:
    """Root ids of entities that hang together more than with others, largest group first, in the order of names."""
    roots, edges = _edges(db)
    return [tuple(roots[node] for node in found) for found in louvain.communities(len(roots), edges)]


def centrality(db: Database) -> dict[int, float]:
    """PageRank by root id, highest first, ties by name; a relation counts once for each piece of its evidence.

    Raises:
        ConfigError: rustworkx is not installed.
    """
    try:
        import rustworkx
    except ImportError as error:
        raise ConfigError(
            "centrality needs rustworkx; install it with `pip install 'preflexor-agents[graph]'`"
        ) from error
    roots, edges = _edges(db)
    graph = rustworkx.PyDiGraph(multigraph=False)
    graph.add_nodes_from(range(len(roots)))
    weights: dict[tuple[int, int], float] = {}
    for a, b, weight in edges:
        weights[a, b] = weights.get((a, b), 0.0) + weight
    graph.add_edges_from([(a, b, weight) for (a, b), weight in weights.items()])
    ranks = rustworkx.pagerank(graph, weight_fn=float, max_iter=1000)
    ordered = sorted(range(len(roots)), key=lambda node: (-ranks[node], node))
    return {roots[node]: float(ranks[node]) for node in ordered}


def _edges(db: Database) -> tuple[list[int], list[tuple[int, int, float]]]:
    """Root ids in the order of names, and the relations between two of them, as places in that order."""
    roots = [id for (id,) in db.conn.execute("SELECT id FROM entity WHERE id = root_id ORDER BY folded")]
    place = {root: n for n, root in enumerate(roots)}
    sql = """SELECT s.root_id, o.root_id, sum(r.weight) FROM relation r JOIN entity s ON s.id = r.subject_id
             JOIN entity o ON o.id = r.object_id WHERE s.root_id <> o.root_id
             GROUP BY s.root_id, o.root_id"""
    edges = [(place[a], place[b], float(weight)) for a, b, weight in db.conn.execute(sql)]
    return roots, sorted(edges)
