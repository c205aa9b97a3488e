-- The embedded server's store. A directory exists while a file lies below it: its row is kept by the
-- same transaction that creates or deletes the file, so that a listing never walks a subtree.

CREATE TABLE revision (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    newest INTEGER NOT NULL
) STRICT;

INSERT INTO revision (one, newest) VALUES (1, 0);

-- `content` comes last: a listing then never reads the overflow pages of a large file. It is empty where
-- the bytes are a file in bodies/, named by the revision.
CREATE TABLE file (
    id           INTEGER PRIMARY KEY,
    workspace    TEXT NOT NULL,
    path         TEXT NOT NULL CHECK (path > '/'),
    parent       TEXT NOT NULL,
    level        INTEGER NOT NULL CHECK (level > 0),
    revision     TEXT NOT NULL UNIQUE,
    content_type TEXT NOT NULL,
    encoding     TEXT NOT NULL CHECK (encoding IN ('utf-8', 'base64')),
    digest       TEXT NOT NULL CHECK (length(digest) = 64),
    size         INTEGER NOT NULL CHECK (size >= 0),
    byte_size    INTEGER NOT NULL CHECK (byte_size >= 0),
    updated_at   TEXT NOT NULL,
    semantics    TEXT,
    object_id    TEXT, -- the provider's own name of it, once the provider has it
    content      TEXT NOT NULL,
    UNIQUE (workspace, path)
) STRICT;

CREATE INDEX file_by_parent ON file (workspace, parent, path);

CREATE TABLE directory (
    workspace TEXT NOT NULL,
    path      TEXT NOT NULL,
    parent    TEXT NOT NULL,
    level     INTEGER NOT NULL CHECK (level >= 0),
    files     INTEGER NOT NULL CHECK (files >= 0),
    PRIMARY KEY (workspace, path)
) STRICT, WITHOUT ROWID;

CREATE INDEX directory_by_parent ON directory (workspace, parent, path);

CREATE TABLE op (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    workspace        TEXT NOT NULL,
    path             TEXT NOT NULL,
    kind             TEXT NOT NULL CHECK (kind IN ('put', 'delete')),
    revision         TEXT NOT NULL UNIQUE,
    content_type     TEXT,
    correlation_id   TEXT NOT NULL,
    at               INTEGER NOT NULL,
    identity_kind    TEXT,
    identity_key     TEXT,
    identity_expires INTEGER,
    provider         TEXT NOT NULL DEFAULT '',
    status           TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'succeeded', 'dead_lettered')),
    attempts         INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    last_error       TEXT,
    provider_result  TEXT,
    updated_at       INTEGER, -- null until it was first acknowledged or replayed
    CHECK ((identity_kind IS NULL) = (identity_key IS NULL))
) STRICT;

CREATE INDEX op_by_identity ON op (workspace, identity_kind, identity_key, id) WHERE identity_key IS NOT NULL;
CREATE INDEX op_by_workspace ON op (workspace, id);
CREATE INDEX op_waiting ON op (workspace, id) WHERE status = 'pending';
CREATE INDEX op_dead ON op (workspace, provider, id) WHERE status = 'dead_lettered';

CREATE TABLE event (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    workspace      TEXT NOT NULL,
    type           TEXT NOT NULL CHECK (type IN ('file.created', 'file.updated', 'file.deleted', 'writeback.failed')),
    path           TEXT NOT NULL,
    revision       TEXT NOT NULL,
    digest         TEXT,
    origin         TEXT NOT NULL CHECK (origin IN ('agent_write', 'provider_sync', 'system')),
    provider       TEXT NOT NULL,
    correlation_id TEXT NOT NULL,
    at             TEXT NOT NULL
) STRICT;

CREATE INDEX event_by_workspace ON event (workspace, id);
CREATE INDEX event_by_revision ON event (revision);

-- Who may touch what: a row for each file whose permissions hold a rule. Few files have one, so that
-- where there is none, a listing costs what it cost without them.
CREATE TABLE guard (
    workspace TEXT NOT NULL,
    path      TEXT NOT NULL,
    rules     TEXT NOT NULL,
    PRIMARY KEY (workspace, path)
) STRICT, WITHOUT ROWID;
