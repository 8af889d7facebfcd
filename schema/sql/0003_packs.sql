-- Several small contents in one frame: what came of one action compresses better together, and fills its pages.
--
-- A content has its digest once, in the order in which it is looked for. `content_bytes` stays as it is; several contents may name
-- one row of it.
CREATE TABLE content_packed (
    kind         INTEGER NOT NULL CHECK (kind IN (0, 1)),
    digest       BLOB    NOT NULL CHECK (length(digest) = 32),
    size         INTEGER NOT NULL CHECK (size >= 0),           -- bytes of the content itself
    stored       INTEGER NOT NULL CHECK (stored >= 0),         -- bytes it takes here; in a pack, its share
    form         INTEGER NOT NULL CHECK (form IN (0, 1, 2, 3)), -- 0 a file, 1 in content_bytes, 2 there as zstd, 3 in a pack there
    body         INTEGER CHECK ((body IS NULL) = (form = 0)),  -- content_bytes.id
    start        INTEGER NOT NULL CHECK (start >= 0),          -- where it begins in the unpacked pack
    last_used_ms INTEGER NOT NULL,
    PRIMARY KEY (kind, digest)
) STRICT, WITHOUT ROWID;
INSERT INTO content_packed
    SELECT kind, digest, size, stored, form, CASE form WHEN 0 THEN NULL ELSE id END, 0, last_used_ms
    FROM content ORDER BY kind, digest;
DROP TABLE content;
ALTER TABLE content_packed RENAME TO content;
