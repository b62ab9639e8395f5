//! The store from which a second host can take over: Redis 7.
//!
//! Layout: a hash `provision:<kind>` a kind, field = key, value =
//! `<version> <json>`; the stream `provision:events`, entry id `<seq>-0`, one
//! field a fact, so that `redis-cli XRANGE provision:events - +` reads like a
//! log; `provision:head` = `<seq> <hash>` of the last event.
//!
//! A commit is one Lua script, so it is all or nothing. Redis has no SHA-256
//! for scripts: the chain is computed here against the head last seen, and
//! the script refuses when the head has moved (another one wrote), which is
//! tried again. A commit whose answer was lost is recognised by finding
//! its last event in its place: it is not done twice.
//!
//! How much a crash of Redis itself may lose is Redis's `appendfsync`
//! setting; `docs/operations.md` says to use `always`.

use super::redis_lock::{self, LOCK};
use super::{
    Batch, Claim, Doc, EventLog, EventQuery, Expect, Owner, State, Store, StoreError, chain_all,
};
use crate::model::{Digest, Event, NewEvent};
use async_trait::async_trait;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{AsyncCommands, Script, Value};
use std::collections::{BTreeMap, HashMap};
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

const EVENTS: &str = "provision:events";
const HEAD: &str = "provision:head";

/// KEYS: head, events, lock, then one hash a write. ARGV: expected head, new
/// head, number of writes, our name in the lock or ''; a write is (field, expect, json or ''); then events, each
/// (id, number of texts, texts …).
static COMMIT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local owner = redis.call('GET', KEYS[3])
if ARGV[4] ~= '' and owner and owner ~= ARGV[4] then return {'taken', owner} end
local head = redis.call('GET', KEYS[1]) or ''
if head ~= ARGV[1] then return {'head', head} end
local n = tonumber(ARGV[3])
local i = 5
local todo = {}
for w = 1, n do
  local key, field, expect, json = KEYS[3 + w], ARGV[i], ARGV[i+1], ARGV[i+2]
  i = i + 3
  local have = redis.call('HGET', key, field)
  local version = have and string.match(have, '^%d+') or '0'
  if expect ~= '' and expect ~= version then return {'conflict', field} end
  todo[w] = {key, field, json, version}
end
for w = 1, n do
  local t = todo[w]
  if t[3] == '' then redis.call('HDEL', t[1], t[2])
  else redis.call('HSET', t[1], t[2], string.format('%d ', tonumber(t[4]) + 1) .. t[3]) end
end
while ARGV[i] do
  local id, count = ARGV[i], tonumber(ARGV[i+1])
  redis.call('XADD', KEYS[2], id, unpack(ARGV, i + 2, i + 1 + count))
  i = i + 2 + count
end
if ARGV[2] ~= '' then redis.call('SET', KEYS[1], ARGV[2]) end
return {'ok'}
",
    )
});

/// See the module.
pub struct RedisStore {
    name: String,
    conn: ConnectionManager,
    /// Our line in the lock, once we have it.
    owner: OnceLock<String>,
}

fn key_of(kind: &str) -> String {
    format!("provision:{kind}")
}

impl RedisStore {
    /// Connects; fails when there is no answer within five seconds.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let name = public_name(url);
        let unavailable = |why: String| StoreError::Unavailable { what: name.clone(), why };
        // The client's error texts may repeat the URL, password and all.
        let client = redis::Client::open(url).map_err(|_| {
            unavailable("the URL cannot be read; use redis://[:password@]host:6379".into())
        })?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(2)))
            .set_response_timeout(Some(Duration::from_secs(3)))
            .set_number_of_retries(1)
            .set_max_delay(Duration::from_millis(500));
        let conn = tokio::time::timeout(
            Duration::from_secs(5),
            ConnectionManager::new_with_config(client, config),
        )
        .await
        .map_err(|_| unavailable("no answer within 5 s".into()))?
        .map_err(|e| unavailable(e.to_string()))?;
        Ok(Self { name, conn, owner: OnceLock::new() })
    }

    fn lost(&self, e: redis::RedisError) -> StoreError {
        StoreError::Unavailable { what: self.name.clone(), why: e.to_string() }
    }

    /// Whether this very event is in the stream; asked after a lost answer,
    /// so it is tried for a while. Others may have written behind it.
    async fn holds(&self, e: &Event) -> bool {
        let q = EventQuery { after: Some(e.seq - 1), limit: 1, ..EventQuery::default() };
        for _ in 0..5 {
            match self.query(&q).await {
                Ok(page) => return page.first().is_some_and(|x| x.hash == e.hash),
                Err(_) => tokio::time::sleep(Duration::from_millis(400)).await,
            }
        }
        false
    }

    async fn head(&self) -> Result<(String, u64, Digest), StoreError> {
        let text: Option<String> = self.conn.clone().get(HEAD).await.map_err(|e| self.lost(e))?;
        parse_head(text.unwrap_or_default())
    }
}

fn parse_head(text: String) -> Result<(String, u64, Digest), StoreError> {
    if text.is_empty() {
        return Ok((text, 0, Digest::from_raw(Event::GENESIS)));
    }
    let parsed = text.split_once(' ').and_then(|(s, h)| Some((s.parse().ok()?, h.parse().ok()?)));
    match parsed {
        Some((seq, hash)) => Ok((text, seq, hash)),
        None => Err(StoreError::Corrupt(format!("{HEAD} is {text:?}"))),
    }
}

/// The URL without user and password.
fn public_name(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host))
        }
        None => "redis".to_owned(),
    }
}

fn doc_from(key: String, text: &str) -> Result<Doc, StoreError> {
    let bad = || StoreError::Corrupt(format!("document {key:?}"));
    let (version, json) = text.split_once(' ').ok_or_else(bad)?;
    let version = version.parse().map_err(|_| bad())?;
    let value = serde_json::from_str(json).map_err(|_| bad())?;
    Ok(Doc { key, version, value })
}

fn texts_of(e: &Event) -> Result<Vec<String>, StoreError> {
    let detail =
        serde_json::to_string(&e.event.detail).map_err(|x| StoreError::Corrupt(x.to_string()))?;
    let mut out = vec![
        "at".into(),
        e.event.at.to_string(),
        "who".into(),
        e.event.actor.clone(),
        "what".into(),
        e.event.action.clone(),
        "outcome".into(),
        e.event.outcome.to_string(),
        "detail".into(),
        detail,
        "prev".into(),
        e.prev.to_string(),
        "hash".into(),
        e.hash.to_string(),
    ];
    if let Some(n) = &e.event.node {
        out.extend(["node".to_owned(), n.to_string()]);
    }
    Ok(out)
}

fn event_from(id: &str, fields: &HashMap<String, Value>) -> Result<Event, StoreError> {
    let bad = |what: &str| StoreError::Corrupt(format!("event {id}: {what}"));
    let text = |k: &str| -> Option<String> {
        fields.get(k).and_then(|v| redis::from_redis_value_ref(v).ok())
    };
    let need = |k: &'static str| text(k).ok_or_else(|| bad(k));
    let detail: BTreeMap<String, String> =
        serde_json::from_str(&need("detail")?).map_err(|_| bad("detail"))?;
    Ok(Event {
        seq: id.split('-').next().and_then(|s| s.parse().ok()).ok_or_else(|| bad("id"))?,
        event: NewEvent {
            at: need("at")?.parse().map_err(|_| bad("at"))?,
            actor: need("who")?,
            action: need("what")?,
            node: text("node").map(|n| n.parse()).transpose().map_err(|_| bad("node"))?,
            outcome: serde_json::from_value(need("outcome")?.into()).map_err(|_| bad("outcome"))?,
            detail,
        },
        prev: need("prev")?.parse().map_err(|_| bad("prev"))?,
        hash: need("hash")?.parse().map_err(|_| bad("hash"))?,
    })
}

#[async_trait]
impl State for RedisStore {
    async fn get(&self, kind: &'static str, key: &str) -> Result<Option<Doc>, StoreError> {
        let text: Option<String> =
            self.conn.clone().hget(key_of(kind), key).await.map_err(|e| self.lost(e))?;
        text.map(|t| doc_from(key.to_owned(), &t)).transpose()
    }

    async fn list(&self, kind: &'static str) -> Result<Vec<Doc>, StoreError> {
        let all: BTreeMap<String, String> =
            self.conn.clone().hgetall(key_of(kind)).await.map_err(|e| self.lost(e))?;
        all.into_iter().map(|(k, t)| doc_from(k, &t)).collect()
    }

    async fn list_below(&self, kind: &'static str, prefix: &str) -> Result<Vec<Doc>, StoreError> {
        const PAGE: usize = 1000;
        let mut conn = self.conn.clone();
        // What a pattern would read as more than itself.
        let special = |c: char| "\\*?[]^-".contains(c);
        let plain = |c: char| if special(c) { format!("\\{c}") } else { c.to_string() };
        let pattern = format!("{}*", prefix.chars().map(plain).collect::<String>());
        // A scan may say something twice.
        let mut all: BTreeMap<String, String> = BTreeMap::new();
        let mut cursor = 0u64;
        loop {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(key_of(kind)).arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(PAGE);
            let (next, some): (u64, BTreeMap<String, String>) =
                scan.query_async(&mut conn).await.map_err(|e| self.lost(e))?;
            all.extend(some);
            if next == 0 {
                return all.into_iter().map(|(k, t)| doc_from(k, &t)).collect();
            }
            cursor = next;
        }
    }
}

#[async_trait]
impl EventLog for RedisStore {
    async fn query(&self, query: &EventQuery) -> Result<Vec<Event>, StoreError> {
        const PAGE: usize = 500;
        let mut conn = self.conn.clone();
        let mut out = Vec::new();
        let forward = query.after.is_some();
        let mut edge = match query.after {
            Some(a) => format!("({a}-{}", u64::MAX),
            None => "+".to_owned(),
        };
        'pages: while out.len() < query.limit {
            let reply: redis::streams::StreamRangeReply = if forward {
                conn.xrange_count(EVENTS, &edge, "+", PAGE).await
            } else {
                conn.xrevrange_count(EVENTS, &edge, "-", PAGE).await
            }
            .map_err(|e| self.lost(e))?;
            let Some(last) = reply.ids.last() else { break };
            edge = format!("({}", last.id);
            let short = reply.ids.len() < PAGE;
            for entry in &reply.ids {
                let e = event_from(&entry.id, &entry.map)?;
                if query.wants(&e) {
                    out.push(e);
                    if out.len() == query.limit {
                        break 'pages;
                    }
                } else if !forward
                    && query
                        .since
                        .is_some_and(|t| e.event.at < t - jiff::SignedDuration::from_secs(60))
                {
                    break 'pages;
                }
            }
            if short {
                break;
            }
        }
        if !forward {
            out.reverse();
        }
        Ok(out)
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn commit(&self, batch: Batch) -> Result<Vec<Event>, StoreError> {
        let (mut head, mut seq, mut hash) = self.head().await?;
        // Another server may write between our look and our script: try again
        // with what it left. Bounded, so that a broken head cannot spin.
        for _ in 0..100 {
            let events = chain_all(seq, hash, batch.events.clone());
            let mut call = COMMIT.prepare_invoke();
            call.key(HEAD).key(EVENTS).key(LOCK);
            for w in &batch.writes {
                call.key(key_of(w.kind));
            }
            let new_head = events.last().map(|e| format!("{} {}", e.seq, e.hash));
            call.arg(&head).arg(new_head.as_deref().unwrap_or("")).arg(batch.writes.len());
            call.arg(self.owner.get().map(String::as_str).unwrap_or(""));
            for w in &batch.writes {
                let expect = match w.expect {
                    Expect::Any => String::new(),
                    Expect::Absent => "0".to_owned(),
                    Expect::Version(v) => v.to_string(),
                };
                let json = w.value.as_ref().map(|v| v.to_string()).unwrap_or_default();
                call.arg(&w.key).arg(expect).arg(json);
            }
            for e in &events {
                let texts = texts_of(e)?;
                call.arg(format!("{}-0", e.seq)).arg(texts.len());
                for t in texts {
                    call.arg(t);
                }
            }
            let answer: Result<Vec<String>, _> = call.invoke_async(&mut self.conn.clone()).await;
            let answer = match answer {
                Ok(a) => a,
                // The script may have run although its answer was lost.
                Err(e) => match events.last() {
                    Some(last) if self.holds(last).await => return Ok(events),
                    _ => return Err(self.lost(e)),
                },
            };
            match answer.first().map(String::as_str) {
                Some("ok") => return Ok(events),
                Some("taken") => {
                    let by = answer.get(1).map(String::as_str).unwrap_or("another");
                    return Err(redis_lock::taken(&self.name, by));
                }
                Some("head") => {
                    (head, seq, hash) = parse_head(answer.get(1).cloned().unwrap_or_default())?;
                }
                _ => {
                    let key = answer.get(1).cloned().unwrap_or_default();
                    let kind = batch.writes.iter().find(|w| w.key == key).map_or("", |w| w.kind);
                    return Err(StoreError::Conflict { kind: kind.to_owned(), key });
                }
            }
        }
        Err(StoreError::Unavailable {
            what: self.name.clone(),
            why: "other servers kept writing; tried 100 times".into(),
        })
    }

    async fn claim(&self, owner: &Owner) -> Result<Claim, StoreError> {
        let claim = redis_lock::claim(self.conn.clone(), owner).await.map_err(|e| self.lost(e))?;
        if claim == Claim::Ours {
            let _ = self.owner.set(owner.line());
        }
        Ok(claim)
    }

    async fn release(&self, owner: &Owner) -> Result<(), StoreError> {
        redis_lock::release(self.conn.clone(), owner).await.map_err(|e| self.lost(e))
    }

    async fn health(&self) -> Result<(), StoreError> {
        let _: String = redis::cmd("PING")
            .query_async(&mut self.conn.clone())
            .await
            .map_err(|e| self.lost(e))?;
        Ok(())
    }

    fn name(&self) -> &str {
        &self.name
    }
}
