//! The default store: one SQLite file, readable with `sqlite3`.
//!
//! Layout: `doc(kind, key, version, value)` with the JSON as text, and
//! `event(seq, at, actor, action, node, outcome, detail, prev, hash)`, one
//! column a field so that people can query it. WAL with `synchronous=FULL`:
//! a commit that has returned is on the disk. One connection behind a mutex,
//! used on blocking threads; a second read-only one so that a long query does
//! not delay a commit. The file is made with mode 0600.

use super::{
    Batch, Claim, Doc, EventLog, EventQuery, Expect, Owner, State, Store, StoreError, chain_all,
};
use crate::model::{Digest, Event, NewEvent};
use async_trait::async_trait;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS doc (
  kind TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, value TEXT NOT NULL,
  PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event (
  seq INTEGER PRIMARY KEY, at TEXT NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
  node TEXT, outcome TEXT NOT NULL, detail TEXT NOT NULL, prev TEXT NOT NULL, hash TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS event_node ON event (node, seq);
";

/// See the module.
pub struct SqliteStore {
    name: String,
    write: Arc<Mutex<Connection>>,
    read: Arc<Mutex<Connection>>,
    lock_path: PathBuf,
    /// Locked as long as it is open.
    lock: Mutex<Option<File>>,
}

/// Copies a database that may be in use, as it is at one moment, to a file
/// that must not be there; mode 0600.
///
/// # Errors
/// Which file, and why.
pub fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    let failed = |why: String| StoreError::Unavailable {
        what: format!("copy of {} to {}", from.display(), to.display()),
        why,
    };
    // SQLite fills a file that is empty.
    std::fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(to)
        .map_err(|e| failed(e.to_string()))?;
    let copied = || -> rusqlite::Result<()> {
        let c = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        c.busy_timeout(Duration::from_secs(30))?;
        c.execute("VACUUM INTO ?1", params![to.to_string_lossy()]).map(drop)
    };
    copied().map_err(|e| failed(e.to_string()))?;
    File::open(to).and_then(|f| f.sync_all()).map_err(|e| failed(e.to_string()))
}

impl SqliteStore {
    /// Opens or makes the file; its directory must exist.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let name = format!("sqlite:{}", path.display());
        let unavailable = |why: String| StoreError::Unavailable { what: name.clone(), why };
        std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(|e| unavailable(e.to_string()))?;
        let write = Connection::open(path).map_err(|e| unavailable(e.to_string()))?;
        let set_up = || -> rusqlite::Result<Connection> {
            write.busy_timeout(Duration::from_secs(5))?;
            write.pragma_update(None, "journal_mode", "WAL")?;
            write.pragma_update(None, "synchronous", "FULL")?;
            write.execute_batch(SCHEMA)?;
            let read = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            read.busy_timeout(Duration::from_secs(5))?;
            Ok(read)
        };
        let read = set_up().map_err(|e| unavailable(e.to_string()))?;
        let mut lock_path = path.as_os_str().to_owned();
        lock_path.push(".lock");
        Ok(Self {
            name,
            write: Arc::new(Mutex::new(write)),
            read: Arc::new(Mutex::new(read)),
            lock_path: lock_path.into(),
            lock: Mutex::default(),
        })
    }

    async fn on<T, F>(&self, conn: &Arc<Mutex<Connection>>, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, Fault> + Send + 'static,
    {
        let conn = conn.clone();
        let out = tokio::task::spawn_blocking(move || {
            work(&mut conn.lock().unwrap_or_else(PoisonError::into_inner))
        })
        .await;
        match out {
            Ok(Ok(t)) => Ok(t),
            Ok(Err(Fault::Sql(e))) => {
                Err(StoreError::Unavailable { what: self.name.clone(), why: e.to_string() })
            }
            Ok(Err(Fault::Store(e))) => Err(e),
            Err(e) => Err(StoreError::Unavailable { what: self.name.clone(), why: e.to_string() }),
        }
    }
}

/// What can go wrong inside one piece of blocking work.
enum Fault {
    Sql(rusqlite::Error),
    Store(StoreError),
}

impl From<rusqlite::Error> for Fault {
    fn from(e: rusqlite::Error) -> Self {
        Fault::Sql(e)
    }
}

fn corrupt(what: impl std::fmt::Display) -> Fault {
    Fault::Store(StoreError::Corrupt(what.to_string()))
}

type Row = (u64, String, String, String, Option<String>, String, String, String, String);

fn event_from(row: Row) -> Result<Event, Fault> {
    let (seq, at, actor, action, node, outcome, detail, prev, hash) = row;
    let bad = |e: &dyn std::fmt::Display| corrupt(format!("event {seq}: {e}"));
    Ok(Event {
        seq,
        event: NewEvent {
            at: at.parse().map_err(|e| bad(&e))?,
            actor,
            action,
            node: node.map(|n| n.parse()).transpose().map_err(|e| bad(&e))?,
            outcome: serde_json::from_value(outcome.into()).map_err(|e| bad(&e))?,
            detail: serde_json::from_str(&detail).map_err(|e| bad(&e))?,
        },
        prev: prev.parse().map_err(|e| bad(&e))?,
        hash: hash.parse().map_err(|e| bad(&e))?,
    })
}

fn read_row(r: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok((
        r.get(0)?,
        r.get(1)?,
        r.get(2)?,
        r.get(3)?,
        r.get(4)?,
        r.get(5)?,
        r.get(6)?,
        r.get(7)?,
        r.get(8)?,
    ))
}

#[async_trait]
impl State for SqliteStore {
    async fn get(&self, kind: &'static str, key: &str) -> Result<Option<Doc>, StoreError> {
        let key = key.to_owned();
        self.on(&self.read, move |c| {
            let row: Option<(u64, String)> = c
                .prepare_cached("SELECT version, value FROM doc WHERE kind = ?1 AND key = ?2")?
                .query_row(params![kind, key], |r| Ok((r.get(0)?, r.get(1)?)))
                .optional()?;
            row.map(|(version, text)| {
                let value = serde_json::from_str(&text)
                    .map_err(|e| corrupt(format!("{kind} {key}: {e}")))?;
                Ok(Doc { key: key.clone(), version, value })
            })
            .transpose()
        })
        .await
    }

    async fn list(&self, kind: &'static str) -> Result<Vec<Doc>, StoreError> {
        self.list_below(kind, "").await
    }

    async fn list_below(&self, kind: &'static str, prefix: &str) -> Result<Vec<Doc>, StoreError> {
        // Keys are compared by their bytes; no text is behind the last character.
        let (from, to) = (prefix.to_owned(), format!("{prefix}{}", char::MAX));
        self.on(&self.read, move |c| {
            let mut st = c.prepare_cached(
                "SELECT key, version, value FROM doc
                 WHERE kind = ?1 AND key >= ?2 AND key < ?3 ORDER BY key",
            )?;
            let rows = st.query_map(params![kind, from, to], |r| {
                Ok((r.get::<_, String>(0)?, r.get(1)?, r.get::<_, String>(2)?))
            })?;
            rows.map(|row| {
                let (key, version, text) = row?;
                let value = serde_json::from_str(&text)
                    .map_err(|e| corrupt(format!("{kind} {key}: {e}")))?;
                Ok(Doc { key, version, value })
            })
            .collect()
        })
        .await
    }
}

#[async_trait]
impl EventLog for SqliteStore {
    async fn query(&self, query: &EventQuery) -> Result<Vec<Event>, StoreError> {
        let q = query.clone();
        self.on(&self.read, move |c| {
            let order = if q.after.is_some() { "ASC" } else { "DESC" };
            let mut st = c.prepare_cached(&format!(
                "SELECT seq, at, actor, action, node, outcome, detail, prev, hash FROM event
                 WHERE seq > ?1 AND (?2 IS NULL OR node = ?2) ORDER BY seq {order}"
            ))?;
            let after = q.after.unwrap_or(0);
            let node = q.node.as_ref().map(|n| n.as_str().to_owned());
            let mut rows = st.query(params![after, node])?;
            let mut out = Vec::new();
            // Time and action are tested here: texts of times do not sort
            // like times when their fractions differ in length.
            while out.len() < q.limit {
                let Some(row) = rows.next()? else { break };
                let e = event_from(read_row(row)?)?;
                if q.wants(&e) {
                    out.push(e);
                } else if q.after.is_none()
                    && q.since.is_some_and(|t| e.event.at < t - jiff::SignedDuration::from_secs(60))
                {
                    break;
                }
            }
            if q.after.is_none() {
                out.reverse();
            }
            Ok(out)
        })
        .await
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn commit(&self, batch: Batch) -> Result<Vec<Event>, StoreError> {
        self.on(&self.write, move |c| {
            let tx = c.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            for w in batch.writes {
                write_one(&tx, w)?;
            }
            let head: Option<(u64, String)> = tx
                .prepare_cached("SELECT seq, hash FROM event ORDER BY seq DESC LIMIT 1")?
                .query_row([], |r| Ok((r.get(0)?, r.get(1)?)))
                .optional()?;
            let (seq, hash) = match head {
                None => (0, Digest::from_raw(Event::GENESIS)),
                Some((seq, h)) => {
                    (seq, h.parse().map_err(|e| corrupt(format!("event {seq}: {e}")))?)
                }
            };
            let events = chain_all(seq, hash, batch.events);
            for e in &events {
                let outcome = e.event.outcome.to_string();
                let detail = serde_json::to_string(&e.event.detail).map_err(corrupt)?;
                tx.prepare_cached("INSERT INTO event VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9)")?
                    .execute(params![
                        e.seq,
                        e.event.at.to_string(),
                        e.event.actor,
                        e.event.action,
                        e.event.node.as_ref().map(|n| n.as_str()),
                        outcome,
                        detail,
                        e.prev.to_string(),
                        e.hash.to_string()
                    ])?;
            }
            tx.commit()?;
            Ok(events)
        })
        .await
    }

    /// A lock on `<file>.lock`, which the kernel takes back when we end,
    /// however we end. SQLite's own locks are for single commits.
    async fn claim(&self, owner: &Owner) -> Result<Claim, StoreError> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if lock.is_some() {
            return Ok(Claim::Ours);
        }
        let failed = |e: std::io::Error| StoreError::Unavailable {
            what: self.name.clone(),
            why: format!("{}: {e}", self.lock_path.display()),
        };
        let mut options = std::fs::OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let mut file = options.open(&self.lock_path).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut by = String::new();
                file.take(300).read_to_string(&mut by).map_err(failed)?;
                return Ok(Claim::Held { by, left: None });
            }
            Err(e) => return Err(failed(e.into())),
        }
        file.set_len(0).and_then(|()| file.write_all(owner.line().as_bytes())).map_err(failed)?;
        *lock = Some(file);
        Ok(Claim::Ours)
    }

    async fn release(&self, _: &Owner) -> Result<(), StoreError> {
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    async fn health(&self) -> Result<(), StoreError> {
        self.on(&self.read, |c| Ok(c.query_row("SELECT 1", [], |_| Ok(()))?)).await
    }

    fn name(&self) -> &str {
        &self.name
    }
}

fn write_one(tx: &rusqlite::Transaction<'_>, w: super::Write) -> Result<(), Fault> {
    let have: Option<u64> = tx
        .prepare_cached("SELECT version FROM doc WHERE kind = ?1 AND key = ?2")?
        .query_row(params![w.kind, w.key], |r| r.get(0))
        .optional()?;
    let fits = match w.expect {
        Expect::Any => true,
        Expect::Absent => have.is_none(),
        Expect::Version(v) => have == Some(v),
    };
    if !fits {
        return Err(Fault::Store(StoreError::Conflict { kind: w.kind.to_owned(), key: w.key }));
    }
    match w.value {
        Some(value) => tx
            .prepare_cached("INSERT OR REPLACE INTO doc VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![w.kind, w.key, have.unwrap_or(0) + 1, value.to_string()])?,
        None => tx
            .prepare_cached("DELETE FROM doc WHERE kind = ?1 AND key = ?2")?
            .execute(params![w.kind, w.key])?,
    };
    Ok(())
}
