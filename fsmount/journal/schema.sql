-- The journal: ops, their attempts, open drafts, and what the remote cannot hold.
-- `sound` repeats what the types say of a row; the view `ready` is the one definition of which op may go next.

CREATE TABLE op (
    seq INTEGER PRIMARY KEY,
    op_id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    path TEXT NOT NULL,
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
    grp TEXT,                           -- shared by the moves of one directory rename
    released INTEGER NOT NULL DEFAULT 0, -- a person let it go: the brake has no say in it any more
    forced INTEGER NOT NULL DEFAULT 0,  -- a person said that it wins over theirs; one more with each claim since
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
    accepted INTEGER NOT NULL DEFAULT 0, -- the remote took it: only the provider behind it failed, there is no body
    theirs_path TEXT,                   -- which of its names theirs, or their removal, is at
    sound INTEGER NOT NULL GENERATED ALWAYS AS (
        kind IN ('put', 'delete', 'move', 'rmdir')
        AND state IN ('pending', 'sending', 'held', 'dead-letter', 'discarded')
        AND substr(path, 1, 1) = '/'
        AND (kind = 'move') = (to_path IS NOT NULL)
        AND (kind <> 'put' OR body_size IS NOT NULL OR accepted)
        AND (body_size IS NULL OR body_digest IS NOT NULL OR body_draft IS NOT NULL)
        AND (reason IS NULL OR reason IN (
            'rejected', 'exhausted', 'conflict', 'remote-deleted', 'forbidden', 'too-large', 'parent-missing',
            'not-empty', 'provider-failed', 'interrupted', 'corrupt-spool'))
        AND (state <> 'dead-letter' OR reason IS NOT NULL)
    ) VIRTUAL,
    CHECK (sound)
) STRICT;

-- With what a count of the queue adds up, so that it reads nothing else.
CREATE INDEX op_due ON op (not_before, body_size, created_at) WHERE state = 'pending';
CREATE INDEX op_held ON op (path, to_path, body_size, created_at) WHERE state = 'held';
CREATE INDEX op_dead ON op (seq) WHERE state = 'dead-letter';
CREATE INDEX op_discarded ON op (settled_at, body_size) WHERE state = 'discarded';
CREATE INDEX op_damaged ON op (seq) WHERE sound = 0;
CREATE INDEX op_path ON op (path);
CREATE INDEX op_to_path ON op (to_path) WHERE to_path IS NOT NULL;
CREATE INDEX op_body ON op (body_digest) WHERE body_draft IS NULL;
CREATE INDEX op_draft ON op (body_draft) WHERE body_draft IS NOT NULL;
CREATE INDEX op_theirs ON op (theirs_digest) WHERE theirs_size IS NOT NULL;
CREATE INDEX op_superseded ON op (superseded_by) WHERE superseded_by IS NOT NULL;
CREATE UNIQUE INDEX one_sending_a_path ON op (path) WHERE state = 'sending' AND NOT accepted;

-- The names of the unsettled ops that decide something; `target`: the op puts a file there.
CREATE TABLE touch (
    path TEXT NOT NULL,
    seq INTEGER NOT NULL,
    parent TEXT NOT NULL,
    target INTEGER NOT NULL,
    PRIMARY KEY (path, seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX touch_parent ON touch (target, parent);

-- Who waits for whom: on the same name, above or below it. A dead move bars what is on or below its names only.
CREATE VIEW blocker AS
SELECT op.seq AS seq, touch.seq AS by_seq
FROM op JOIN touch JOIN op earlier ON earlier.seq = touch.seq
WHERE touch.path IN (
        WITH RECURSIVE above (path) AS (
            VALUES (op.path), (op.to_path)
            UNION ALL
            SELECT rtrim(rtrim(path, replace(path, '/', '')), '/') FROM above WHERE path <> '')
        SELECT path FROM above)
    AND touch.seq < op.seq AND earlier.sound
    AND (earlier.state IN ('pending', 'sending', 'held') OR (earlier.state = 'dead-letter' AND earlier.kind = 'move'))
UNION ALL
SELECT op.seq, touch.seq
FROM op JOIN touch ON touch.path > op.path || '/' AND touch.path < op.path || '0' JOIN op earlier ON earlier.seq = touch.seq
WHERE touch.seq < op.seq AND earlier.sound AND earlier.state IN ('pending', 'sending', 'held')
UNION ALL
SELECT op.seq, touch.seq
FROM op JOIN touch ON touch.path > op.to_path || '/' AND touch.path < op.to_path || '0'
    JOIN op earlier ON earlier.seq = touch.seq
WHERE touch.seq < op.seq AND earlier.sound AND earlier.state IN ('pending', 'sending', 'held');

CREATE VIEW ready AS
SELECT * FROM op
WHERE state = 'pending' AND sound AND NOT EXISTS (SELECT 1 FROM blocker WHERE blocker.seq = op.seq);

-- The newest accepted op of each path: the provider behind the remote may still fail with it.
CREATE TABLE delivered (
    id INTEGER PRIMARY KEY,
    op_id TEXT NOT NULL UNIQUE,
    path TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('put', 'delete')),
    revision TEXT,
    remote_op_id TEXT,
    base_revision TEXT,
    base_digest TEXT,
    content_type TEXT,
    attempts INTEGER NOT NULL DEFAULT 0, -- how often the provider failed with it
    created_at REAL NOT NULL
) STRICT;

CREATE INDEX delivered_remotely ON delivered (remote_op_id) WHERE remote_op_id IS NOT NULL;

CREATE TABLE attempt (
    op_id TEXT NOT NULL,
    at REAL NOT NULL,
    status INTEGER NOT NULL,
    error TEXT,
    duration REAL NOT NULL,
    correlation_id TEXT,
    body TEXT NOT NULL
) STRICT;

CREATE INDEX attempt_op ON attempt (op_id);

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

-- What a delete took away stands under the name of the delete: a delete that fails gives it back.
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
    body_draft TEXT,
    target BLOB,  -- what a symbolic link says
    made_at REAL  -- when a file that this mount made was first delivered
) STRICT, WITHOUT ROWID;

CREATE INDEX node_local ON node (path)
WHERE kind IS NOT NULL OR mode IS NOT NULL OR uid IS NOT NULL OR gid IS NOT NULL;
CREATE INDEX node_parent ON node (parent);
CREATE INDEX node_digest ON node (body_digest) WHERE body_digest IS NOT NULL;
CREATE INDEX node_draft ON node (body_draft) WHERE body_draft IS NOT NULL;

CREATE TABLE xattr (
    path TEXT NOT NULL,
    name TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (path, name)
) STRICT, WITHOUT ROWID;

-- Words that outlive the daemon.
CREATE TABLE setting (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Counters that only ever grow, in one row.
CREATE TABLE total (
    failed_attempts INTEGER NOT NULL DEFAULT 0,
    failed_writebacks INTEGER NOT NULL DEFAULT 0,
    acknowledged INTEGER NOT NULL DEFAULT 0,
    superseded INTEGER NOT NULL DEFAULT 0,
    discarded INTEGER NOT NULL DEFAULT 0,
    bytes_up INTEGER NOT NULL DEFAULT 0
) STRICT;

INSERT INTO total DEFAULT VALUES
