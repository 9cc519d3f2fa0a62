"""The tables of the knowledge graph. Triggers keep its promises, so that any deletion of chunks or runs is clean.

A relation exists as long as evidence speaks for it, an entity as long as evidence names it, a pattern as long as a text
shows it. Evidence goes with its chunk and its run; what loses its last evidence goes in the same statement.
"""

TABLES = """
CREATE TABLE graph_run (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('extract', 'answer', 'grow', 'import')),
    model TEXT NOT NULL,
    prompt_sha256 TEXT NOT NULL,
    seed INTEGER NOT NULL,
    note TEXT NOT NULL,
    started_at TEXT NOT NULL
) STRICT;

-- root_id is the entity that stands for this one after all merges, itself if it was not merged.
CREATE TABLE entity (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    folded TEXT NOT NULL UNIQUE CHECK (folded <> ''),
    root_id INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX entity_root ON entity(root_id);

CREATE TABLE entity_word (
    word TEXT NOT NULL,
    entity_id INTEGER NOT NULL REFERENCES entity(id) ON DELETE CASCADE,
    PRIMARY KEY (word, entity_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX entity_word_entity ON entity_word(entity_id);

-- How texts write the entity and what they take it for; uses counts the evidence that does.
CREATE TABLE entity_name (
    id INTEGER PRIMARY KEY,
    entity_id INTEGER NOT NULL REFERENCES entity(id) ON DELETE CASCADE,
    name TEXT NOT NULL CHECK (name <> ''),
    type TEXT NOT NULL,
    uses INTEGER NOT NULL DEFAULT 0,
    UNIQUE (entity_id, name, type)
) STRICT;

CREATE TABLE entity_merge (
    gone_id INTEGER PRIMARY KEY REFERENCES entity(id) ON DELETE CASCADE,
    keep_id INTEGER NOT NULL REFERENCES entity(id) ON DELETE CASCADE,
    decided_at TEXT NOT NULL,
    CHECK (gone_id <> keep_id)
) STRICT;
CREATE INDEX entity_merge_keep ON entity_merge(keep_id);

CREATE TABLE relation (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    subject_id INTEGER NOT NULL REFERENCES entity(id) ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind <> ''),
    object_id INTEGER NOT NULL REFERENCES entity(id) ON DELETE CASCADE,
    weight INTEGER NOT NULL DEFAULT 0,
    UNIQUE (subject_id, kind, object_id)
) STRICT;
CREATE INDEX relation_object ON relation(object_id, kind, subject_id);

-- start and end are places in the chunk's text, so that a chunk may move in its document.
CREATE TABLE evidence (
    id INTEGER PRIMARY KEY,
    relation_id INTEGER NOT NULL REFERENCES relation(id) ON DELETE CASCADE,
    chunk_id INTEGER NOT NULL REFERENCES chunk(id) ON DELETE CASCADE,
    start INTEGER NOT NULL CHECK (start >= 0),
    "end" INTEGER NOT NULL CHECK ("end" > start),
    run_id INTEGER NOT NULL REFERENCES graph_run(id) ON DELETE CASCADE,
    subject_name_id INTEGER NOT NULL REFERENCES entity_name(id),
    object_name_id INTEGER NOT NULL REFERENCES entity_name(id),
    UNIQUE (relation_id, chunk_id, start, "end", run_id)
) STRICT;
CREATE INDEX evidence_chunk ON evidence(chunk_id);
CREATE INDEX evidence_run ON evidence(run_id);
CREATE INDEX evidence_subject_name ON evidence(subject_name_id);
CREATE INDEX evidence_object_name ON evidence(object_name_id);

-- Which chunks a run has read, so that it can go on where it was broken off.
CREATE TABLE graph_examined (
    run_id INTEGER NOT NULL REFERENCES graph_run(id) ON DELETE CASCADE,
    chunk_id INTEGER NOT NULL REFERENCES chunk(id) ON DELETE CASCADE,
    PRIMARY KEY (chunk_id, run_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX graph_examined_run ON graph_examined(run_id);

-- A shape names its symbols in the order of their first appearance, so that equal patterns have equal shapes.
CREATE TABLE pattern (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    shape TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE pattern_use (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    pattern_id INTEGER NOT NULL REFERENCES pattern(id) ON DELETE CASCADE,
    chunk_id INTEGER NOT NULL REFERENCES chunk(id) ON DELETE CASCADE,
    start INTEGER NOT NULL CHECK (start >= 0),
    "end" INTEGER NOT NULL CHECK ("end" > start),
    run_id INTEGER NOT NULL REFERENCES graph_run(id) ON DELETE CASCADE,
    UNIQUE (pattern_id, chunk_id, start, "end", run_id)
) STRICT;
CREATE INDEX pattern_use_chunk ON pattern_use(chunk_id);
CREATE INDEX pattern_use_run ON pattern_use(run_id);
CREATE TABLE pattern_binding (
    use_id INTEGER NOT NULL REFERENCES pattern_use(id) ON DELETE CASCADE,
    symbol INTEGER NOT NULL CHECK (symbol >= 0),
    name TEXT NOT NULL,
    folded TEXT NOT NULL,
    PRIMARY KEY (use_id, symbol)
) STRICT, WITHOUT ROWID;
CREATE INDEX pattern_binding_folded ON pattern_binding(folded);

CREATE TRIGGER entity_insert AFTER INSERT ON entity BEGIN
    UPDATE entity SET root_id = new.id WHERE id = new.id;
END;

CREATE TRIGGER evidence_insert AFTER INSERT ON evidence BEGIN
    UPDATE relation SET weight = weight + 1 WHERE id = new.relation_id;
    UPDATE entity_name SET uses = uses + 1 WHERE id IN (new.subject_name_id, new.object_name_id);
END;

CREATE TRIGGER evidence_delete AFTER DELETE ON evidence BEGIN
    UPDATE relation SET weight = weight - 1 WHERE id = old.relation_id;
    DELETE FROM relation WHERE id = old.relation_id AND weight = 0;
    UPDATE entity_name SET uses = uses - 1 WHERE id IN (old.subject_name_id, old.object_name_id);
    DELETE FROM entity_name WHERE id IN (old.subject_name_id, old.object_name_id) AND uses = 0;
END;

CREATE TRIGGER entity_name_delete AFTER DELETE ON entity_name BEGIN
    DELETE FROM entity WHERE id = old.entity_id
        AND NOT EXISTS (SELECT 1 FROM entity_name WHERE entity_id = old.entity_id);
END;

-- What was merged with an entity that goes stays one: under what that entity was merged into, else under the first by
-- name of those that it stood for.
CREATE TRIGGER entity_delete BEFORE DELETE ON entity
WHEN EXISTS (SELECT 1 FROM entity_merge WHERE keep_id = old.id) BEGIN
    UPDATE entity SET root_id = (
        SELECT heir.id FROM entity heir WHERE heir.root_id = old.id AND heir.id <> old.id ORDER BY heir.folded LIMIT 1
    ) WHERE root_id = old.id AND id <> old.id;
    UPDATE entity_merge SET keep_id = coalesce(
        (SELECT up.keep_id FROM entity_merge up WHERE up.gone_id = old.id),
        (SELECT root_id FROM entity WHERE id = entity_merge.gone_id)
    ) WHERE keep_id = old.id AND gone_id <> (SELECT root_id FROM entity WHERE id = entity_merge.gone_id);
    DELETE FROM entity_merge WHERE gone_id = (SELECT root_id FROM entity WHERE id = entity_merge.gone_id);
END;

CREATE TRIGGER chunk_text_update AFTER UPDATE OF text ON chunk WHEN new.text <> old.text BEGIN
    DELETE FROM evidence WHERE chunk_id = new.id;
    DELETE FROM pattern_use WHERE chunk_id = new.id;
    DELETE FROM graph_examined WHERE chunk_id = new.id;
END;

CREATE TRIGGER pattern_use_delete AFTER DELETE ON pattern_use BEGIN
    DELETE FROM pattern WHERE id = old.pattern_id
        AND NOT EXISTS (SELECT 1 FROM pattern_use WHERE pattern_id = old.pattern_id);
END;
"""
