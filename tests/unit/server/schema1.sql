-- The embedded server's store. A directory exists while a file lies below it: its row is kept by the
-- same transaction that creates or deletes the file, so that a listing never walks a subtree.

CREATE TABLE revision (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    newest INTEGER NOT NULL
) STRICT;

INSERT INTO revision (one, newest) VALUES (1, 0);

-- `content` comes last: a listing then never reads the overflow pages of a large file.
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
    CHECK ((identity_kind IS NULL) = (identity_key IS NULL))
) STRICT;

CREATE INDEX op_by_identity ON op (workspace, identity_kind, identity_key, id) WHERE identity_key IS NOT NULL;

CREATE TABLE event (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    workspace      TEXT NOT NULL,
    type           TEXT NOT NULL CHECK (type IN ('file.created', 'file.updated', 'file.deleted')),
    path           TEXT NOT NULL,
    revision       TEXT NOT NULL,
    digest         TEXT,
    origin         TEXT NOT NULL,
    provider       TEXT NOT NULL,
    correlation_id TEXT NOT NULL,
    at             TEXT NOT NULL
) STRICT;

CREATE INDEX event_by_workspace ON event (workspace, id);
