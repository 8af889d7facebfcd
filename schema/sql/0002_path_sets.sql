-- What traced tasks were seen to touch: candidates for the second step of their lookup, newest first.
--
-- `static` is the key of the task without its inputs, `paths` the digest of the paths alone, `observed` that of the paths with what was
-- there (field 19 of the action), `bytes` the latter's encoding (schema/KEY.md), zstd with a checksum.
CREATE TABLE path_set (
    static   BLOB    NOT NULL CHECK (length(static) = 32),
    observed BLOB    NOT NULL CHECK (length(observed) = 32),
    paths    BLOB    NOT NULL CHECK (length(paths) = 32),
    bytes    BLOB    NOT NULL,
    at_ms    INTEGER NOT NULL,
    PRIMARY KEY (static, observed)
) STRICT, WITHOUT ROWID;
CREATE INDEX path_set_observed ON path_set (observed);
