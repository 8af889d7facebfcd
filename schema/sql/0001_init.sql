-- The store's database, version 1. Append-only: a change is a new file, never an edit of this one.
--
-- Digests are 32-byte BLOBs. Times are milliseconds since 1970. Nothing here is the only copy of anything that
-- cannot be made again: losing the file means cache misses.

-- `schema` repeats user_version, so that a flipped bit in the header is not taken for a newer version.
CREATE TABLE meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta (name, value) VALUES ('schema', '1');

-- Bytes that `content` and `fingerprint` take, kept up to date by every transaction so that a run can see
-- in one read whether the store is over its cap.
CREATE TABLE usage (
    id    INTEGER PRIMARY KEY CHECK (id = 0),
    bytes INTEGER NOT NULL
) STRICT;
INSERT INTO usage (id, bytes) VALUES (0, 0);

-- Blobs (kind 0) and encoded trees (kind 1). Narrow, because collection reads all of it.
CREATE TABLE content (
    id           INTEGER PRIMARY KEY,
    kind         INTEGER NOT NULL CHECK (kind IN (0, 1)),
    digest       BLOB    NOT NULL CHECK (length(digest) = 32),
    size         INTEGER NOT NULL CHECK (size >= 0),        -- bytes of the content itself
    stored       INTEGER NOT NULL CHECK (stored >= 0),      -- bytes it takes here
    form         INTEGER NOT NULL CHECK (form IN (0, 1, 2)), -- 0 a file, 1 in content_bytes, 2 there as zstd
    last_used_ms INTEGER NOT NULL,
    UNIQUE (kind, digest)
) STRICT;

CREATE TABLE content_bytes (
    id    INTEGER PRIMARY KEY, -- content.id
    bytes BLOB NOT NULL
) STRICT;

-- The action cache. The first result of an action stays.
CREATE TABLE result (
    action        BLOB    NOT NULL PRIMARY KEY CHECK (length(action) = 32),
    outputs       BLOB    NOT NULL CHECK (length(outputs) = 32),       -- tree
    stdout_stderr BLOB    NOT NULL CHECK (length(stdout_stderr) = 32), -- blob
    exit          INTEGER NOT NULL,
    isolation     TEXT    NOT NULL,
    duration_ms   INTEGER NOT NULL,
    cpu_ms        INTEGER NOT NULL,
    max_rss_kib   INTEGER NOT NULL,
    label         TEXT    NOT NULL,
    workspace     TEXT    NOT NULL,
    created_ms    INTEGER NOT NULL,
    last_used_ms  INTEGER NOT NULL,
    seal          BLOB    NOT NULL -- digest of the other columns but last_used_ms: a damaged row is no row
) STRICT;

-- The recorded fields behind an action digest, zstd with a checksum.
CREATE TABLE fingerprint (
    action BLOB NOT NULL PRIMARY KEY CHECK (length(action) = 32),
    bytes  BLOB NOT NULL
) STRICT;

-- Which actions a task had lately, and how they ended: for explanations and for seeing flakiness.
CREATE TABLE recent (
    label     TEXT    NOT NULL,
    workspace TEXT    NOT NULL,
    action    BLOB    NOT NULL CHECK (length(action) = 32),
    at_ms     INTEGER NOT NULL,
    passed    INTEGER NOT NULL,
    failed    INTEGER NOT NULL,
    PRIMARY KEY (label, workspace, action)
) STRICT, WITHOUT ROWID;
CREATE INDEX recent_action ON recent (action);

-- Every recording: two outputs under one action are a task that is not reproducible.
CREATE TABLE ledger (
    action    BLOB    NOT NULL CHECK (length(action) = 32),
    outputs   BLOB    NOT NULL CHECK (length(outputs) = 32),
    workspace TEXT    NOT NULL,
    at_ms     INTEGER NOT NULL, -- the last time
    times     INTEGER NOT NULL,
    PRIMARY KEY (action, outputs, workspace)
) STRICT, WITHOUT ROWID;

CREATE TABLE history (
    label        TEXT    NOT NULL,
    workspace    TEXT    NOT NULL,
    runs         INTEGER NOT NULL,
    duration_ms  REAL    NOT NULL, -- exponentially weighted over executed runs
    last_failed  INTEGER NOT NULL,
    last_outcome TEXT    NOT NULL,
    max_rss_kib  INTEGER NOT NULL,
    at_ms        INTEGER NOT NULL,
    PRIMARY KEY (label, workspace)
) STRICT, WITHOUT ROWID;
