-- The journal: ops, their attempts, open drafts, and what the remote cannot hold.
-- The constraints repeat what the types say; the view `ready` is the one definition of which op may go next.

CREATE TABLE op (
    seq INTEGER PRIMARY KEY,
    op_id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('put', 'delete', 'move', 'rmdir')),
    state TEXT NOT NULL CHECK (state IN ('pending', 'sending', 'dead-letter', 'discarded')),
    path TEXT NOT NULL CHECK (path LIKE '/%'),
    base_revision TEXT,
    base_digest TEXT,
    to_path TEXT,
    to_base_revision TEXT,
    to_base_digest TEXT,
    body_size INTEGER CHECK (body_size >= 0),
    body_digest TEXT,
    body_draft TEXT,
    content_type TEXT,
    step INTEGER NOT NULL DEFAULT 0 CHECK (step IN (0, 1)),
    attempts INTEGER NOT NULL DEFAULT 0,
    budget_start INTEGER NOT NULL DEFAULT 0,
    attempted INTEGER NOT NULL DEFAULT 0,
    redrives INTEGER NOT NULL DEFAULT 0,
    lease INTEGER NOT NULL DEFAULT 0,
    open INTEGER NOT NULL DEFAULT 0,
    not_before REAL NOT NULL DEFAULT 0, -- monotonic clock of the running daemon
    burst_at REAL NOT NULL DEFAULT 0,   -- the same clock: the first close of the burst that this op gathers
    created_at REAL NOT NULL,
    settled_at REAL,                    -- when it became a dead letter or was discarded
    reason TEXT,
    message TEXT NOT NULL DEFAULT '',
    superseded_by TEXT,
    remote_op_id TEXT,
    theirs_revision TEXT,
    theirs_digest TEXT,
    theirs_size INTEGER,
    CHECK ((kind = 'move') = (to_path IS NOT NULL)),
    CHECK (kind <> 'put' OR body_size IS NOT NULL),
    CHECK (body_size IS NULL OR body_digest IS NOT NULL OR body_draft IS NOT NULL),
    CHECK (state <> 'dead-letter' OR reason IS NOT NULL)
) STRICT;

CREATE INDEX op_due ON op (not_before) WHERE state = 'pending';
CREATE INDEX op_state ON op (state, seq);
CREATE INDEX op_path ON op (path);
CREATE INDEX op_body ON op (body_digest) WHERE body_digest IS NOT NULL;
CREATE INDEX op_draft ON op (body_draft) WHERE body_draft IS NOT NULL;
CREATE INDEX op_theirs ON op (theirs_digest) WHERE theirs_size IS NOT NULL;
CREATE UNIQUE INDEX one_sending_a_path ON op (path) WHERE state = 'sending';

-- The names that an unsettled op touches (own = 1), and every directory above them (own = 0).
CREATE TABLE touch (
    seq INTEGER NOT NULL REFERENCES op (seq) ON DELETE CASCADE,
    path TEXT NOT NULL,
    parent TEXT NOT NULL,
    own INTEGER NOT NULL,
    target INTEGER NOT NULL,
    blocks INTEGER NOT NULL,
    PRIMARY KEY (path, seq, own)
) STRICT, WITHOUT ROWID;

CREATE INDEX touch_wait ON touch (path, own, blocks, seq);
CREATE INDEX touch_parent ON touch (parent);
CREATE INDEX touch_seq ON touch (seq);

-- Waits for an earlier op on the same name or below it, or for one on a directory above it.
CREATE VIEW blocker AS
SELECT mine.seq AS seq, earlier.seq AS by_seq
FROM touch mine JOIN touch earlier ON earlier.path = mine.path AND earlier.blocks = 1 AND earlier.seq < mine.seq
WHERE mine.own = 1
UNION ALL
SELECT mine.seq, earlier.seq
FROM touch mine JOIN touch earlier
    ON earlier.path = mine.path AND earlier.own = 1 AND earlier.blocks = 1 AND earlier.seq < mine.seq
WHERE mine.own = 0;

CREATE VIEW ready AS
SELECT * FROM op
WHERE state = 'pending'
    AND NOT EXISTS (
        SELECT 1 FROM touch mine JOIN touch earlier
            ON earlier.path = mine.path AND earlier.blocks = 1 AND earlier.seq < op.seq
        WHERE mine.seq = op.seq AND mine.own = 1)
    AND NOT EXISTS (
        SELECT 1 FROM touch mine JOIN touch earlier
            ON earlier.path = mine.path AND earlier.own = 1 AND earlier.blocks = 1 AND earlier.seq < op.seq
        WHERE mine.seq = op.seq AND mine.own = 0);

CREATE TABLE attempt (
    op_id TEXT NOT NULL REFERENCES op (op_id) ON DELETE CASCADE,
    at REAL NOT NULL,
    status INTEGER NOT NULL,
    error TEXT,
    duration REAL NOT NULL,
    correlation_id TEXT,
    body TEXT NOT NULL
) STRICT;

CREATE INDEX attempt_op ON attempt (op_id, at);

CREATE TABLE draft (
    draft_id TEXT PRIMARY KEY,
    path TEXT NOT NULL,
    base_revision TEXT,
    base_digest TEXT,
    op_id TEXT,
    local INTEGER NOT NULL DEFAULT 0, -- litter: never sent, never a dead letter
    created_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX draft_path ON draft (path);

CREATE TABLE node (
    path TEXT PRIMARY KEY,
    parent TEXT NOT NULL,
    kind TEXT CHECK (kind IN ('file', 'directory', 'symlink')),
    mode INTEGER,
    uid INTEGER,
    gid INTEGER,
    mtime REAL,
    mtime_revision TEXT,
    body_size INTEGER,
    body_digest TEXT,
    body_draft TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX node_parent ON node (parent);

CREATE TABLE total (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
