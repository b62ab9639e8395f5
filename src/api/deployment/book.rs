//! Who is known here: tokens, people, nodes' certificates. In memory for every
//! request, in the store for ever; changed only through [`Book::commit`].

use super::ClientCertificate;
use crate::api::caller::bearer;
use crate::auth::password::PasswordHash;
use crate::auth::rights::{Grant, Right, allow};
use crate::auth::{MasterKey, Role, TokenRecord};
use crate::model::{Digest, Event, NodeName, Time};
use crate::store::{self, Batch, Store, StoreError, Teller};
use axum::http::header;
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, broadcast};

/// The document kind of people, by name.
pub const PERSON: &str = "person";
/// The document kind of certificates, by serial number.
pub const CERTIFICATE: &str = "certificate";

/// Passwords checked at once: each takes 19 MiB.
const CHECKS: usize = 2;
/// How long a checked password is not computed again.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Bound of what is remembered.
const REMEMBER: usize = 256;

/// Somebody who logs in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Person {
    /// Name.
    pub name: String,
    /// Password.
    pub password: PasswordHash,
    /// Rights in the registry.
    pub grants: Vec<Grant>,
    /// Since when.
    pub made: Time,
}

/// A node's certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Certificate {
    /// Node.
    pub node: NodeName,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// When it was signed.
    #[schema(value_type = String, format = DateTime)]
    pub issued: Time,
    /// Not good after.
    #[schema(value_type = String, format = DateTime)]
    pub expires: Time,
    /// Refused since, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Revoked>,
}

/// The end of a certificate before its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Revoked {
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Time,
    /// Why: retired, installed anew.
    pub reason: String,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Root on this host.
    Root,
    /// A node, by its certificate.
    Node(NodeName),
    /// An API token.
    Token(String, Role),
    /// Somebody with a password.
    Person(String),
    /// Nobody in particular.
    Anonymous,
}

impl Who {
    /// As events show it.
    pub fn name(&self) -> String {
        match self {
            Self::Root => "root".into(),
            Self::Node(n) => format!("node:{n}"),
            Self::Token(n, _) => n.clone(),
            Self::Person(n) => format!("user:{n}"),
            Self::Anonymous => "anonymous".into(),
        }
    }
}

/// See the module.
pub struct Book {
    store: Arc<dyn Store>,
    /// Signs passes.
    pub key: Arc<MasterKey>,
    tokens: RwLock<HashMap<Digest, TokenRecord>>,
    people: RwLock<BTreeMap<String, Person>>,
    certificates: RwLock<BTreeMap<String, Certificate>>,
    anonymous: Vec<Grant>,
    nodes: Vec<Grant>,
    teller: Teller,
    checks: Semaphore,
    checked: Mutex<HashMap<Digest, Instant>>,
}

fn read<T>(l: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    l.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(l: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    l.write().unwrap_or_else(PoisonError::into_inner)
}

impl Book {
    /// Reads everything.
    ///
    /// # Errors
    /// The store, or documents that are not ours.
    pub async fn open(
        store: Arc<dyn Store>,
        key: Arc<MasterKey>,
        tokens: HashMap<Digest, TokenRecord>,
        anonymous: Vec<Grant>,
        nodes: Vec<Grant>,
    ) -> Result<Self, StoreError> {
        let corrupt = |e: serde_json::Error| StoreError::Corrupt(e.to_string());
        let mut people = BTreeMap::new();
        for d in store.list(PERSON).await? {
            people.insert(d.key, serde_json::from_value(d.value).map_err(corrupt)?);
        }
        let mut certificates = BTreeMap::new();
        for d in store.list(CERTIFICATE).await? {
            certificates.insert(d.key, serde_json::from_value(d.value).map_err(corrupt)?);
        }
        let teller = Teller::new(&*store).await?;
        Ok(Self {
            store,
            key,
            tokens: RwLock::new(tokens),
            people: RwLock::new(people),
            certificates: RwLock::new(certificates),
            anonymous,
            nodes,
            teller,
            checks: Semaphore::new(CHECKS),
            checked: Mutex::default(),
        })
    }

    pub(super) fn tokens(&self) -> &RwLock<HashMap<Digest, TokenRecord>> {
        &self.tokens
    }

    /// The record, to read.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.teller.subscribe()
    }

    /// What was written since the start.
    pub fn store_counts(&self) -> store::Counts {
        self.teller.counts()
    }

    /// Writes, then tells those who follow the record.
    ///
    /// # Errors
    /// The store; nothing was written.
    pub async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.teller.commit(&*self.store, batch).await.map(drop)
    }

    pub(super) fn people(&self) -> Vec<Person> {
        read(&self.people).values().cloned().collect()
    }

    pub(super) async fn put_person(&self, p: Person, batch: Batch) -> Result<(), StoreError> {
        self.commit(batch).await?;
        self.forget_checks();
        write(&self.people).insert(p.name.clone(), p);
        Ok(())
    }

    pub(super) async fn drop_person(&self, name: &str, batch: Batch) -> Result<(), StoreError> {
        self.commit(batch).await?;
        self.forget_checks();
        write(&self.people).remove(name);
        Ok(())
    }

    fn forget_checks(&self) {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn certificates(&self) -> Vec<Certificate> {
        read(&self.certificates).values().cloned().collect()
    }

    /// Stores certificates that were signed or revoked, with their events.
    pub(super) async fn put_certificates(
        &self,
        changed: Vec<Certificate>,
        mut batch: Batch,
    ) -> Result<(), StoreError> {
        for c in &changed {
            batch = batch.put(CERTIFICATE, &c.serial, c, crate::store::Expect::Any)?;
        }
        self.commit(batch).await?;
        let mut all = write(&self.certificates);
        for c in changed {
            all.insert(c.serial.clone(), c);
        }
        Ok(())
    }

    /// Takes in certificates that another server of the same authority signed
    /// or refused; says how many of them are known here now. What is refused
    /// at one of the two is refused at both.
    ///
    /// # Errors
    /// The store; nothing was taken in.
    pub async fn take_certificates(&self, theirs: Vec<Certificate>) -> Result<u64, StoreError> {
        let known = theirs.len() as u64;
        let mut new = theirs;
        {
            let ours = read(&self.certificates);
            new.retain(|c| match ours.get(&c.serial) {
                None => true,
                Some(o) => o.revoked.is_none() && c.revoked.is_some(),
            });
        }
        let batch = Batch::new();
        for some in new.chunks(256) {
            self.put_certificates(some.to_vec(), batch.clone()).await?;
        }
        Ok(known)
    }

    /// Who sent this request. `Err` is the reason why what it showed is not
    /// good; nothing shown is [`Who::Anonymous`].
    pub async fn who(&self, parts: &Parts) -> Result<Who, String> {
        if parts.extensions.get::<crate::api::LocalPeer>().is_some() {
            return Ok(Who::Root);
        }
        if let Some(pass) = bearer(&parts.headers) {
            return self
                .by_bearer(pass)
                .ok_or_else(|| "this token is not known here, or is over".into());
        }
        if let Some((name, secret)) = basic(parts) {
            return self.by_password(&name, &secret).await;
        }
        match parts.extensions.get::<ClientCertificate>() {
            Some(ClientCertificate(Some(peer))) => self.by_certificate(&peer.serial),
            _ => Ok(Who::Anonymous),
        }
    }

    fn by_bearer(&self, token: &str) -> Option<Who> {
        if let Some(t) = read(&self.tokens).get(&Digest::of(token.as_bytes())) {
            return (!t.expired(Time::now())).then(|| Who::Token(t.name.clone(), t.role));
        }
        let who = self.key.who_passes(token, Time::now())?;
        // What `/auth/token` gives to those who show nothing.
        if who == "anonymous" {
            return Some(Who::Anonymous);
        }
        match who.split_once(':')? {
            ("user", name) => {
                read(&self.people).contains_key(name).then(|| Who::Person(name.to_owned()))
            }
            ("token", name) => {
                let all = read(&self.tokens);
                let t = all.values().find(|t| t.name == name && !t.expired(Time::now()))?;
                Some(Who::Token(t.name.clone(), t.role))
            }
            ("node", name) => {
                let name: NodeName = name.parse().ok()?;
                let all = read(&self.certificates);
                let good = all.values().any(|c| c.node == name && c.revoked.is_none());
                good.then_some(Who::Node(name))
            }
            _ => None,
        }
    }

    /// A name and password; an API token may stand in the password's place.
    pub async fn by_password(&self, name: &str, secret: &str) -> Result<Who, String> {
        if secret.starts_with("pv_") {
            let wrong = || "this API token is not known here".to_owned();
            return self.by_bearer(secret).ok_or_else(wrong);
        }
        let known = read(&self.people).get(name).cloned();
        // What is remembered is of the salted hash too: a changed password
        // is another entry.
        let salted = serde_json::to_string(&known.as_ref().map(|p| &p.password));
        let key =
            Digest::of(format!("{name}\0{secret}\0{}", salted.unwrap_or_default()).as_bytes());
        if known.is_some() && self.was_checked(&key) {
            return Ok(Who::Person(name.to_owned()));
        }
        let wrong = || "name or password is wrong".to_owned();
        let _turn = self.checks.acquire().await.map_err(|_| wrong())?;
        let secret = secret.to_owned();
        let fits = tokio::task::spawn_blocking(move || match known {
            Some(p) => p.password.fits(&secret),
            // As slow as for a name that exists.
            None => PasswordHash::make(&secret).is_err(),
        });
        if !fits.await.unwrap_or(false) {
            return Err(wrong());
        }
        let mut all = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, at| at.elapsed() < REMEMBERED);
        if all.len() < REMEMBER {
            all.insert(key, Instant::now());
        }
        Ok(Who::Person(name.to_owned()))
    }

    fn was_checked(&self, key: &Digest) -> bool {
        let all = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(key).is_some_and(|at| at.elapsed() < REMEMBERED)
    }

    fn by_certificate(&self, serial: &str) -> Result<Who, String> {
        let all = read(&self.certificates);
        let Some(c) = all.get(serial) else {
            return Err(format!("the certificate {serial} is not in this server's record"));
        };
        match &c.revoked {
            Some(r) => Err(format!(
                "the certificate of {} is refused since {}: {}",
                c.node, r.at, r.reason
            )),
            None if c.expires < Time::now() => {
                Err(format!("the certificate of {} is over", c.node))
            }
            None => Ok(Who::Node(c.node.clone())),
        }
    }

    /// Whether `who` may do `right` in `repository`.
    pub fn may(&self, who: &Who, repository: &str, right: Right) -> bool {
        let own = match who {
            Who::Root | Who::Token(_, Role::Admin) => true,
            Who::Token(_, Role::Operate) => right != Right::Delete,
            Who::Token(_, Role::Read | Role::Controller) => right == Right::Pull,
            Who::Node(_) => allow(&self.nodes, repository, right),
            Who::Person(name) => {
                read(&self.people).get(name).is_some_and(|p| allow(&p.grants, repository, right))
            }
            Who::Anonymous => false,
        };
        own || (right == Right::Pull && allow(&self.anonymous, repository, right))
    }
}

/// `Authorization: Basic` (RFC 7617).
pub(super) fn basic(parts: &Parts) -> Option<(String, String)> {
    let value = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || rest.len() > 4096 {
        return None;
    }
    let text = String::from_utf8(base64_decode(rest.trim())?).ok()?;
    let (name, secret) = text.split_once(':')?;
    Some((name.to_owned(), secret.to_owned()))
}

fn base64_decode(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}
