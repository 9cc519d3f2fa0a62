"""The abstract layer of the graph: patterns that texts show, and the concrete walks that share one.

A pattern's shape is its steps between numbered symbols; what a symbol stands for in a text is kept by name and seen as
the entity of that name, as long as the graph has one. Patterns go with their evidence, as relations do.
"""

import json
from collections.abc import Sequence

from sqlite_utils import Database

from preflexor_agents.errors import InputError
from preflexor_agents.graph.values import Abstraction, Entity, Pattern, PatternStep, PatternUse, Quote, Run
from preflexor_agents.store import graph_names, graph_view

_MOST_STEPS = 100
LARGEST_ID = 1 << 63


def refusal(db: Database, given: Abstraction, lengths: dict[int, int | None]) -> str:
    """Why what a text shows cannot be stored; empty if it can."""
    symbols = {symbol for step in given.steps for symbol in (step.source, step.target)}
    if not given.steps:
        return "it has no steps"
    if len(given.steps) > _MOST_STEPS:
        return f"it has {len(given.steps)} steps, more than {_MOST_STEPS}"
    if symbols != set(range(len(given.names))):
        return f"its steps do not run through the symbols 0 to {len(given.names) - 1} that its names are for"
    return quote_refusal(db, given.quote, lengths)


def quote_refusal(db: Database, quote: Quote, lengths: dict[int, int | None]) -> str:
    """Why the quote is none; empty if it is one. `lengths` remembers the chunks looked at, None for missing ones."""
    id = quote.chunk_id
    if id not in lengths:
        is_id = 0 < id < LARGEST_ID
        row = db.conn.execute("SELECT length(text) FROM chunk WHERE id = ?", (id,)).fetchone() if is_id else None
        lengths[id] = row[0] if row else None
    length = lengths[id]
    if length is None:
        return f"chunk {id} is not in the store"
    if not 0 <= quote.start < quote.end <= length:
        return f"its quote {quote.start}-{quote.end} is not in chunk {id} of {length} characters"
    return ""


def put(db: Database, given: Abstraction, run: Run) -> bool:
    """Store what a text shows; False if the run has found it there before. In a write transaction."""
    quote = given.quote
    shape = json.dumps([[s.source, graph_names.kind(s.kind), s.target] for s in given.steps], ensure_ascii=False)
    db.conn.execute("INSERT OR IGNORE INTO pattern (shape) VALUES (?)", (shape,))
    pattern_id = db.conn.execute("SELECT id FROM pattern WHERE shape = ?", (shape,)).fetchone()[0]
    sql = 'INSERT OR IGNORE INTO pattern_use (pattern_id, chunk_id, start, "end", run_id) VALUES (?, ?, ?, ?, ?)'
    cursor = db.conn.execute(sql, (pattern_id, quote.chunk_id, quote.start, quote.end, run.id))
    if not cursor.rowcount:
        return False
    names = [(n, graph_names.clean(name)[: graph_names.LONGEST_NAME]) for n, name in enumerate(given.names)]
    rows = [(cursor.lastrowid, n, name, graph_names.identity(name)) for n, name in names]
    db.conn.executemany("INSERT INTO pattern_binding (use_id, symbol, name, folded) VALUES (?, ?, ?, ?)", rows)
    return True


def patterns(db: Database, *, root: int | None = None) -> list[Pattern]:
    """The patterns, those shown most often first; with an entity only those that it has a place in."""
    bound = """SELECT u.pattern_id FROM pattern_use u JOIN pattern_binding b ON b.use_id = u.id
               JOIN entity e ON e.folded = b.folded WHERE e.root_id = ?1"""
    sql = f"""SELECT p.id, p.shape, count(*) AS uses FROM pattern p JOIN pattern_use u ON u.pattern_id = p.id
              WHERE ?1 IS NULL OR p.id IN ({bound}) GROUP BY p.id ORDER BY uses DESC, p.shape"""
    return [Pattern(id=id, steps=_steps(shape), uses=n) for id, shape, n in db.conn.execute(sql, (root,))]


def steps(db: Database, pattern_id: int) -> tuple[PatternStep, ...]:
    """The steps of a pattern.

    Raises:
        InputError: there is no such pattern.
    """
    row = db.conn.execute("SELECT shape FROM pattern WHERE id = ?", (pattern_id,)).fetchone()
    if row is None:
        raise InputError(f"the graph has no pattern {pattern_id}; list the patterns to see which are")
    return _steps(row[0])


def _steps(shape: str) -> tuple[PatternStep, ...]:
    return tuple(PatternStep(source=a, kind=kind, target=b) for a, kind, b in json.loads(shape))


def uses(db: Database, pattern_id: int) -> list[PatternUse]:
    """The concrete walks that follow a pattern, in the order of their places.

    Raises:
        InputError: there is no such pattern.
    """
    sql = f"""SELECT u.id, c.id, d.source, d.title, c.start + u.start, c.start + u."end",
                  substr(c.text, u.start + 1, u."end" - u.start), {graph_view.run_columns("r")}
              FROM pattern_use u JOIN chunk c ON c.id = u.chunk_id JOIN document d ON d.id = c.document_id
              JOIN graph_run r ON r.id = u.run_id WHERE u.pattern_id = ? ORDER BY d.source, c.start + u.start, u.id"""
    steps(db, pattern_id)
    rows = db.conn.execute(sql, (pattern_id,)).fetchall()
    bound = _bindings(db, pattern_id)
    roots = dict.fromkeys(root for names in bound.values() for _, root in names if root is not None)
    return [_use(pattern_id, row, bound[row[0]], graph_view.entities(db, list(roots))) for row in rows]


def _bindings(db: Database, pattern_id: int) -> dict[int, list[tuple[str, int | None]]]:
    """For each use the names of its symbols with the root ids of their entities."""
    sql = """SELECT b.use_id, b.name, e.root_id FROM pattern_use u JOIN pattern_binding b ON b.use_id = u.id
             LEFT JOIN entity e ON e.folded = b.folded WHERE u.pattern_id = ? ORDER BY b.use_id, b.symbol"""
    found: dict[int, list[tuple[str, int | None]]] = {}
    for use_id, name, root in db.conn.execute(sql, (pattern_id,)):
        found.setdefault(use_id, []).append((name, root))
    return found


def _use(
    pattern_id: int, row: Sequence[object], bound: list[tuple[str, int | None]], known: dict[int, Entity]
) -> PatternUse:
    names = ("chunk_id", "source", "title", "start", "end", "quote")
    return PatternUse(
        **dict(zip(names, row[1:7], strict=True)),  # type: ignore[arg-type]
        pattern_id=pattern_id,
        names=tuple(name for name, _ in bound),
        entities=tuple(None if root is None else known[root] for _, root in bound),
        run=graph_view.run_of(row[7:]),
    )
