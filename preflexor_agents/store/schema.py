"""The store's tables, and how a file of an older version becomes one of this version.

Plain rows hold the truth. `chunk_fts` and the `vec0` tables are indexes derived from them and can be rebuilt.
A change of the schema is one more function under `@MIGRATIONS()` and one more in `SCHEMA_VERSION`.
"""

import os
from pathlib import Path

from sqlite_utils import Database, Migrations

from preflexor_agents.errors import StoreFileError
from preflexor_agents.store import driver, graph_schema
from preflexor_agents.store.paths import shown

APPLICATION_ID = 0x50524658
"""`PRFX` in the file's header: tells a knowledge store from any other SQLite file."""
SCHEMA_VERSION = 7
"""Kept in `user_version`; equals the number of migrations."""
MIGRATIONS = Migrations("preflexor")
_PAGE_SIZE = 8192
_SQLITE_HEADER = b"SQLite format 3\0"


@MIGRATIONS()
def m001_documents_chunks_vectors(db: Database) -> None:
    """Documents with their text, chunks as spans of it, full-text index, vectors by embedder."""
    db.executescript(
        f"""
        CREATE TABLE document (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            source TEXT NOT NULL UNIQUE,
            title TEXT NOT NULL,
            sha256 TEXT NOT NULL,
            parser TEXT NOT NULL,
            size_bytes INTEGER NOT NULL,
            ingested_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
            text TEXT NOT NULL
        ) STRICT;
        CREATE INDEX document_sha256 ON document(sha256);

        CREATE TABLE chunk (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            document_id INTEGER NOT NULL REFERENCES document(id) ON DELETE CASCADE,
            ord INTEGER NOT NULL,
            start INTEGER NOT NULL CHECK (start >= 0),
            "end" INTEGER NOT NULL CHECK ("end" > start),
            page INTEGER,
            context TEXT NOT NULL,
            text TEXT NOT NULL,
            UNIQUE (document_id, ord)
        ) STRICT;

        CREATE VIRTUAL TABLE chunk_fts USING fts5(
            context, text, content='chunk', content_rowid='id',
            tokenize='porter unicode61 remove_diacritics 2'
        );
        CREATE TRIGGER chunk_fts_insert AFTER INSERT ON chunk BEGIN
            INSERT INTO chunk_fts(rowid, context, text) VALUES (new.id, new.context, new.text);
        END;
        CREATE TRIGGER chunk_fts_delete AFTER DELETE ON chunk BEGIN
            INSERT INTO chunk_fts(chunk_fts, rowid, context, text) VALUES ('delete', old.id, old.context, old.text);
        END;
        CREATE TRIGGER chunk_fts_update AFTER UPDATE OF context, text ON chunk BEGIN
            INSERT INTO chunk_fts(chunk_fts, rowid, context, text) VALUES ('delete', old.id, old.context, old.text);
            INSERT INTO chunk_fts(rowid, context, text) VALUES (new.id, new.context, new.text);
        END;

        CREATE TABLE embedding_space (
            id INTEGER PRIMARY KEY,
            spec TEXT NOT NULL,
            name TEXT NOT NULL UNIQUE,
            dim INTEGER NOT NULL CHECK (dim > 0),
            indexed INTEGER NOT NULL DEFAULT 0
        ) STRICT;

        CREATE TABLE embedding (
            space_id INTEGER NOT NULL REFERENCES embedding_space(id) ON DELETE CASCADE,
            chunk_id INTEGER NOT NULL REFERENCES chunk(id) ON DELETE CASCADE,
            vector BLOB NOT NULL,
            PRIMARY KEY (chunk_id, space_id)
        ) STRICT;

        PRAGMA application_id = {APPLICATION_ID};
        PRAGMA user_version = 1;
        """
    )


@MIGRATIONS()
def m002_findings(db: Database) -> None:
    """Where the documents came from that were not read from files."""
    db.executescript(
        """
        CREATE TABLE finding (
            document_id INTEGER PRIMARY KEY REFERENCES document(id) ON DELETE CASCADE,
            owner TEXT NOT NULL,
            author TEXT NOT NULL,
            mime_type TEXT NOT NULL,
            metadata TEXT NOT NULL CHECK (json_valid(metadata)),
            added_at TEXT NOT NULL
        ) STRICT;
        CREATE INDEX finding_owner ON finding(owner);

        PRAGMA user_version = 2;
        """
    )


@MIGRATIONS()
def m003_pages_collections(db: Database) -> None:
    """Who wrote a document and when, the collection it is in, and where its pages are."""
    db.executescript(
        """
        ALTER TABLE document ADD COLUMN authors TEXT NOT NULL DEFAULT '[]' CHECK (json_valid(authors));
        ALTER TABLE document ADD COLUMN published TEXT;
        ALTER TABLE document ADD COLUMN collection TEXT NOT NULL DEFAULT 'default';
        CREATE INDEX document_collection ON document(collection);

        CREATE TABLE page (
            document_id INTEGER NOT NULL REFERENCES document(id) ON DELETE CASCADE,
            number INTEGER NOT NULL CHECK (number > 0),
            start INTEGER NOT NULL CHECK (start >= 0),
            "end" INTEGER NOT NULL CHECK ("end" >= start),
            PRIMARY KEY (document_id, number)
        ) STRICT, WITHOUT ROWID;

        PRAGMA user_version = 3;
        """
    )


@MIGRATIONS()
def m004_spaces(db: Database) -> None:
    """Several embedding spaces beside each other: one is searched, another may be in the making.

    `chunk.body` is how many characters of headings the chunk begins with; they are embedded as its context.
    """
    db.executescript(
        """
        ALTER TABLE embedding_space ADD COLUMN complete INTEGER NOT NULL DEFAULT 1 CHECK (complete IN (0, 1));
        ALTER TABLE embedding_space ADD COLUMN generation TEXT NOT NULL DEFAULT '';
        CREATE UNIQUE INDEX embedding_space_complete ON embedding_space(complete) WHERE complete;
        ALTER TABLE chunk ADD COLUMN body INTEGER NOT NULL DEFAULT 0;

        PRAGMA user_version = 4;
        """
    )


@MIGRATIONS()
def m005_graph(db: Database) -> None:
    """Entities, relations between them, and the quotes they stand on."""
    db.executescript(f"{graph_schema.TABLES} PRAGMA user_version = 5;")


@MIGRATIONS()
def m006_sessions(db: Database) -> None:
    """Conversations in the terminal UI: their runs as event logs, which may branch."""
    db.executescript(
        """
        CREATE TABLE session (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            name TEXT NOT NULL,
            created_at TEXT NOT NULL,
            changed_at TEXT NOT NULL,
            head_id INTEGER REFERENCES session_run(id) ON DELETE SET NULL,
            draft TEXT NOT NULL DEFAULT ''
        ) STRICT;
        CREATE INDEX session_changed ON session(changed_at);

        CREATE TABLE session_run (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            session_id INTEGER NOT NULL REFERENCES session(id) ON DELETE CASCADE,
            parent_id INTEGER REFERENCES session_run(id) ON DELETE CASCADE,
            forked_id INTEGER REFERENCES session_run(id) ON DELETE SET NULL,
            forked_round INTEGER,
            question TEXT NOT NULL,
            answer TEXT NOT NULL DEFAULT '',
            rounds INTEGER NOT NULL DEFAULT 0,
            stop_reason TEXT NOT NULL DEFAULT '',
            started_at TEXT NOT NULL
        ) STRICT;
        CREATE INDEX session_run_session ON session_run(session_id);
        CREATE INDEX session_run_parent ON session_run(parent_id);
        CREATE INDEX session_run_forked ON session_run(forked_id);
        CREATE INDEX session_head ON session(head_id);

        CREATE TABLE session_event (
            run_id INTEGER NOT NULL REFERENCES session_run(id) ON DELETE CASCADE,
            seq INTEGER NOT NULL,
            t_s REAL NOT NULL,
            body TEXT NOT NULL CHECK (json_valid(body)),
            PRIMARY KEY (run_id, seq)
        ) STRICT, WITHOUT ROWID;

        CREATE VIRTUAL TABLE session_fts USING fts5(
            question, answer, content='session_run', content_rowid='id',
            tokenize='unicode61 remove_diacritics 2'
        );
        CREATE TRIGGER session_fts_insert AFTER INSERT ON session_run BEGIN
            INSERT INTO session_fts(rowid, question, answer) VALUES (new.id, new.question, new.answer);
        END;
        CREATE TRIGGER session_fts_delete AFTER DELETE ON session_run BEGIN
            INSERT INTO session_fts(session_fts, rowid, question, answer)
            VALUES ('delete', old.id, old.question, old.answer);
        END;
        CREATE TRIGGER session_fts_update AFTER UPDATE OF question, answer ON session_run BEGIN
            INSERT INTO session_fts(session_fts, rowid, question, answer)
            VALUES ('delete', old.id, old.question, old.answer);
            INSERT INTO session_fts(rowid, question, answer) VALUES (new.id, new.question, new.answer);
        END;

        PRAGMA user_version = 6;
        """
    )


@MIGRATIONS()
def m007_forge(db: Database) -> None:
    """Which chunks went into which rows of training data; the rows themselves are in the logs of their runs."""
    db.executescript(
        """
        CREATE TABLE forge_run (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            name TEXT NOT NULL UNIQUE,
            log TEXT NOT NULL
        ) STRICT;

        CREATE TABLE forge_row (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            run_id INTEGER NOT NULL REFERENCES forge_run(id) ON DELETE CASCADE,
            number INTEGER NOT NULL CHECK (number >= 0),
            row_id TEXT NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('kept', 'dropped', 'failed')),
            variant TEXT NOT NULL,
            phase INTEGER NOT NULL,
            round INTEGER NOT NULL,
            UNIQUE (run_id, number)
        ) STRICT;
        CREATE INDEX forge_row_row_id ON forge_row(row_id);

        CREATE TABLE forge_row_chunk (
            forge_row_id INTEGER NOT NULL REFERENCES forge_row(id) ON DELETE CASCADE,
            ord INTEGER NOT NULL,
            chunk_id INTEGER NOT NULL REFERENCES chunk(id) ON DELETE CASCADE,
            PRIMARY KEY (forge_row_id, ord)
        ) STRICT, WITHOUT ROWID;
        CREATE INDEX forge_row_chunk_chunk ON forge_row_chunk(chunk_id);

        PRAGMA user_version = 7;
        """
    )


def open_file(path: Path, *, create: bool) -> Database:
    """The store's connection, its schema up to date.

    Raises:
        StoreFileError: the file is missing and not to be made, no store, damaged, of a newer version, or not writable
            and in need of a migration.
    """
    if path.is_dir():
        raise StoreFileError(f"store {shown(path)} is a folder; name a file in it")
    if not path.exists():
        if not create:
            raise StoreFileError(f"store {shown(path)} does not exist; ingest documents into it first")
        make_folder(path.parent)
    elif not _may_be_sqlite(path):
        raise StoreFileError(f"store {shown(path)} is no SQLite file, so it is no knowledge store; name another file")
    with driver.speaking_of(path):
        db = _connect(path, mode="rwc" if create else "rw")
        try:
            _bring_up_to_date(db, path, create=create)
        except BaseException:
            db.close()
            raise
    return db


def _may_be_sqlite(path: Path) -> bool:
    """SQLite itself would take a file of a few bytes for an empty one and overwrite it."""
    try:
        with path.open("rb") as file:
            head = file.read(len(_SQLITE_HEADER))
    except OSError as error:
        raise StoreFileError(f"store {shown(path)} cannot be opened: {error.strerror}") from error
    return head in (b"", _SQLITE_HEADER)


def make_folder(folder: Path) -> None:
    """Make the folder that a store or a copy is to lie in. Raises StoreFileError if it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreFileError(f"folder {shown(folder)} for the store cannot be made: {error.strerror}") from error


def _connect(path: Path, *, mode: str) -> Database:
    """A connection that can read; a store in a folder where no WAL can be made is opened as it lies there."""
    try:
        return driver.connect(path, mode=mode)
    except driver.sqlite3.OperationalError:
        wal = path.with_name(path.name + "-wal")
        is_whole = path.is_file() and not (wal.exists() and wal.stat().st_size)
        if not is_whole or os.access(path.parent, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            raise
        return driver.connect(path, mode="ro", immutable=True)


def version(db: Database) -> int:
    """The schema version in the file; 0 is a file without tables."""
    return int(db.conn.execute("PRAGMA user_version").fetchone()[0])


def _bring_up_to_date(db: Database, path: Path, *, create: bool) -> None:
    found = version(db)
    owner = db.conn.execute("PRAGMA application_id").fetchone()[0]
    if owner != APPLICATION_ID:
        if db.conn.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            raise StoreFileError(f"store {shown(path)} is an SQLite file of another program; name another file")
        if not create:
            raise StoreFileError(f"store {shown(path)} is empty; ingest documents into it first")
    if found > SCHEMA_VERSION:
        raise StoreFileError(
            f"store {shown(path)} has version {found}, this program knows up to {SCHEMA_VERSION}: "
            "update preflexor-agents"
        )
    if found == SCHEMA_VERSION:
        return
    if found == 0:
        db.conn.execute(f"PRAGMA page_size = {_PAGE_SIZE}")
        db.conn.execute("PRAGMA journal_mode = WAL")
    else:
        driver.copy_into(db, path.with_name(f"{path.name}.v{found}.bak"))
    with driver.writing(db):
        MIGRATIONS.apply(db)
