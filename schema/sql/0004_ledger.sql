-- Who got what: on which machine, built by whom. And which actions came to more than one thing, so that nobody has to look for them.
--
-- `machine` is a digest, or empty where it is not known; `builder` a word, or empty. `label` is that of the task that ran last.
CREATE TABLE ledger_by_machine (
    action    BLOB    NOT NULL CHECK (length(action) = 32),
    outputs   BLOB    NOT NULL CHECK (length(outputs) = 32),
    workspace TEXT    NOT NULL,
    machine   BLOB    NOT NULL CHECK (length(machine) IN (0, 32)),
    builder   TEXT    NOT NULL,
    label     TEXT    NOT NULL,
    at_ms     INTEGER NOT NULL, -- the last time
    times     INTEGER NOT NULL,
    PRIMARY KEY (action, outputs, workspace, machine, builder)
) STRICT, WITHOUT ROWID;
INSERT INTO ledger_by_machine
    SELECT action, outputs, workspace, x'', '',
        coalesce((SELECT label FROM result WHERE result.action = ledger.action),
            (SELECT label FROM recent WHERE recent.action = ledger.action ORDER BY at_ms DESC LIMIT 1), ''),
        at_ms, times
    FROM ledger ORDER BY action, outputs, workspace;
DROP TABLE ledger;
ALTER TABLE ledger_by_machine RENAME TO ledger;

-- Actions that came to different outputs. They stay when lines of the ledger go, as long as there is one.
CREATE TABLE unstable (
    action BLOB NOT NULL PRIMARY KEY CHECK (length(action) = 32)
) STRICT, WITHOUT ROWID;
INSERT INTO unstable SELECT action FROM ledger GROUP BY action HAVING count(DISTINCT outputs) > 1;
