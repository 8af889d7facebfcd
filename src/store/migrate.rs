//! Brings a database to the newest version, in one transaction. Knows the SQL files and nothing of what they mean.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use crate::base::digest::Digest;
use crate::base::encode::Encoder;

/// Every version, oldest first. Append-only: position `n` takes a database from version `n` to `n + 1`.
const MIGRATIONS: [&str; 4] = [
    include_str!("../../schema/sql/0001_init.sql"),
    include_str!("../../schema/sql/0002_path_sets.sql"),
    include_str!("../../schema/sql/0003_packs.sql"),
    include_str!("../../schema/sql/0004_ledger.sql"),
];

/// The version this program writes.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// Digest of all tables and indexes of [`VERSION`]; a new migration comes with a new one.
const SCHEMA_DIGEST: &str = "9ffa9bb88731b20be9871da1c75d0ba2dfe3bd8938fb0afe702caaa2798a41c9";

/// Marks the file as ours: `drys` in ASCII.
const APPLICATION_ID: i64 = 0x6472_7973;

/// What a database was before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Before {
    /// Empty, or not there.
    Nothing,
    /// Of this or an earlier version.
    Known,
}

/// Why a database cannot be used.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Its version is higher than [`VERSION`].
    Newer(i64),
    /// It is not ours, or broken.
    Damaged(String),
    /// SQLite failed.
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Refusal::Sql(error)
    }
}

/// Checks identity and version, and migrates where needed.
pub(super) fn migrate(connection: &Connection) -> Result<Before, Refusal> {
    let version = check(connection)?;
    if version == VERSION {
        check_schema(connection)?;
        return Ok(Before::Known);
    }
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Exclusive)?;
    // Again, now that nobody else can be at it.
    let version = check(&transaction)?;
    let first = usize::try_from(version).map_err(|_| Refusal::Damaged(format!("its version is {version}")))?;
    for sql in MIGRATIONS.iter().skip(first) {
        transaction.execute_batch(sql)?;
    }
    transaction.execute("UPDATE meta SET value = ?1 WHERE name = 'schema'", [VERSION.to_string()])?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    check_schema(&transaction)?;
    transaction.commit()?;
    Ok(if version == 0 { Before::Nothing } else { Before::Known })
}

/// The version; 0 for an empty database.
fn check(connection: &Connection) -> Result<i64, Refusal> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (identity, version) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables == 0 && identity == 0 && version == 0 {
        return Ok(0);
    }
    let repeated: Option<String> =
        connection.query_row("SELECT value FROM meta WHERE name = 'schema'", [], |row| row.get(0)).optional()?;
    // The header is a handful of bytes without a checksum: a version is believed when it stands in both places.
    if identity != APPLICATION_ID || repeated != Some(version.to_string()) || version < 1 {
        return Err(Refusal::Damaged("its header contradicts its contents".to_owned()));
    }
    if version > VERSION {
        return Err(Refusal::Newer(version));
    }
    Ok(version)
}

/// SQLite keeps its tables as text without a checksum: one flipped bit in a constraint, and every insert fails for ever.
fn check_schema(connection: &Connection) -> Result<(), Refusal> {
    if schema_digest(connection)?.to_hex() == SCHEMA_DIGEST {
        return Ok(());
    }
    Err(Refusal::Damaged("its tables are not those of its version".to_owned()))
}

/// Digests the tables and indexes as SQLite has them, but for its own statistics.
fn schema_digest(connection: &Connection) -> rusqlite::Result<Digest> {
    let mut statement = connection.prepare(
        "SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema WHERE name NOT LIKE 'sqlite!_stat%' ESCAPE '!' \
         ORDER BY name",
    )?;
    let mut encoder = Encoder::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        for column in 0..4 {
            encoder.bytes(row.get::<_, String>(column)?.as_bytes());
        }
    }
    Ok(Digest::of(encoder.as_slice()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_the_schema_is_that_of_the_newest_version() {
        let connection = memory();
        for sql in MIGRATIONS {
            connection.execute_batch(sql).expect("our own SQL");
        }
        assert_eq!(schema_digest(&connection).expect("readable").to_hex(), SCHEMA_DIGEST, "a migration sets a new one");
    }

    fn memory() -> Connection {
        Connection::open_in_memory().expect("memory is there")
    }

    #[test]
    fn an_empty_database_is_brought_to_the_newest_version_once() {
        let connection = memory();
        assert_eq!(migrate(&connection).expect("it migrates"), Before::Nothing);
        assert_eq!(migrate(&connection).expect("it is current"), Before::Known);
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).expect("readable");
        assert_eq!(version, VERSION);
    }

    #[test]
    fn a_failing_migration_leaves_nothing() {
        let connection = memory();
        connection.execute_batch("CREATE TABLE ledger (x)").expect("in the way");
        assert!(migrate(&connection).is_err());
        let tables: i64 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).expect("readable");
        assert_eq!(tables, 1);
    }

    #[test]
    fn a_newer_version_is_refused_and_a_foreign_database_is_damage() {
        let newer = memory();
        migrate(&newer).expect("it migrates");
        newer.execute("UPDATE meta SET value = '7'", []).expect("writable");
        assert!(matches!(migrate(&newer), Err(Refusal::Damaged(_))), "the header alone is not believed");
        newer.pragma_update(None, "user_version", 7).expect("writable");
        assert!(matches!(migrate(&newer), Err(Refusal::Newer(7))));

        let foreign = memory();
        foreign
            .execute_batch("CREATE TABLE meta (name TEXT, value TEXT); PRAGMA application_id = 1")
            .expect("writable");
        assert!(matches!(migrate(&foreign), Err(Refusal::Damaged(_))));
    }
}
