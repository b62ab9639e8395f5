//! Delivers events to webhooks: a task for each, one event after another, so
//! that a receiver sees them in the order of the log. An event is tried again,
//! ever later, until it is a day old; then it is listed as undelivered and the
//! next one goes out. How far each is stands in the store: after a restart an
//! event may come twice (its number is in a header), and none is left out.

use crate::api::Ctx;
use crate::api::events::follow;
use crate::api::webhooks::{LISTED, PROGRESS, Progress, Undelivered, Webhook, secret_key};
use crate::model::{Event, Secret, Time};
use crate::store::{Batch, EventQuery, Expect, kind};
use futures::StreamExt as _;
use ring::hmac;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How long a receiver may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest pause between two tries.
const LONGEST: Duration = Duration::from_secs(300);
/// Age of an event at which it is given up.
const GIVE_UP: Duration = Duration::from_secs(24 * 3600);
/// Tries of an event that the receiver refuses (4xx).
const REFUSED: u32 = 4;
/// How often it is written down how far a webhook is, while nothing comes that
/// it wants.
const WRITTEN: Duration = Duration::from_secs(1);

/// What follows a try that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Again(Duration),
    GiveUp,
}

/// `status` is absent where no answer came; `tries` counts this one.
fn then(status: Option<u16>, tries: u32, since: Duration) -> Then {
    let refused = status.is_some_and(|s| (400..500).contains(&s) && s != 408 && s != 429);
    if since >= GIVE_UP || (refused && tries >= REFUSED) {
        return Then::GiveUp;
    }
    Then::Again(Duration::from_secs(1 << tries.saturating_sub(1).min(20)).min(LONGEST))
}

/// `t=SECONDS,v1=HEX`: HMAC-SHA256 over `SECONDS.BODY`.
pub fn signature(secret: &Secret, seconds: i64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    let mut c = hmac::Context::with_key(&key);
    c.update(format!("{seconds}.").as_bytes());
    c.update(body);
    format!("t={seconds},v1={}", hex::encode(c.sign()))
}

/// Keeps a task for each webhook until `stop`.
pub async fn run(ctx: Arc<Ctx>, stop: CancellationToken) {
    let Ok(client) = client() else {
        tracing::error!("no TLS for webhooks: none is delivered");
        return stop.cancelled().await;
    };
    let mut tasks: HashMap<String, (Webhook, CancellationToken)> = HashMap::new();
    loop {
        let now = ctx.webhooks.all();
        tasks.retain(|_, (w, end)| {
            let stays = now.iter().any(|(n, _)| n == w);
            if !stays {
                end.cancel();
            }
            stays
        });
        for (w, p) in now {
            tasks.entry(w.name.to_string()).or_insert_with(|| {
                let end = stop.child_token();
                let courier =
                    Courier { ctx: ctx.clone(), client: client.clone(), webhook: w.clone() };
                tokio::spawn(courier.run(p, end.clone()));
                (w, end)
            });
        }
        tokio::select! {
            () = ctx.webhooks.changed.notified() => {}
            () = stop.cancelled() => return,
        }
    }
}

fn client() -> reqwest::Result<reqwest::Client> {
    crate::tls::install_provider();
    reqwest::Client::builder()
        .user_agent(concat!("provision/", env!("CARGO_PKG_VERSION")))
        .timeout(PATIENCE)
        // An event is for the address that was given, and for no other.
        .redirect(reqwest::redirect::Policy::none())
        .build()
}

struct Courier {
    ctx: Arc<Ctx>,
    client: reqwest::Client,
    webhook: Webhook,
}

impl Courier {
    async fn run(self, mut p: Progress, end: CancellationToken) {
        let q = EventQuery { after: Some(p.done), ..EventQuery::default() };
        let mut events = Box::pin(follow(self.ctx.clone(), q));
        let mut written = Instant::now();
        loop {
            let event = tokio::select! {
                e = events.next() => e,
                () = end.cancelled() => None,
            };
            let Some(e) = event else { break };
            if self.webhook.wants(&e.event.action) {
                tokio::select! {
                    () = self.deliver(&e, &mut p) => {}
                    () = end.cancelled() => break,
                }
            }
            p.done = e.seq;
            if !self.ctx.webhooks.set(&self.webhook, &p) {
                return;
            }
            if written.elapsed() >= WRITTEN || self.webhook.wants(&e.event.action) {
                self.write(&p).await;
                written = Instant::now();
            }
        }
        if self.ctx.webhooks.set(&self.webhook, &p) {
            self.write(&p).await;
        }
    }

    /// A failure costs a second delivery after a restart, nothing more.
    async fn write(&self, p: &Progress) {
        let batch = Batch::new().put(PROGRESS, self.webhook.name.as_str(), p, Expect::Any);
        if let Ok(batch) = batch {
            let _ = self.ctx.rack.commit(batch).await;
        }
    }

    /// Returns when the event was taken or given up.
    async fn deliver(&self, e: &Event, p: &mut Progress) {
        let mut tries = 0;
        loop {
            tries += 1;
            let (status, why) = match self.once(e).await {
                Ok(()) => {
                    p.delivered += 1;
                    p.failing = None;
                    return;
                }
                Err(failure) => failure,
            };
            let age = Time::now().duration_since(e.event.at);
            match then(status, tries, Duration::try_from(age).unwrap_or_default()) {
                Then::Again(pause) => {
                    p.failing = Some(format!("{why}; tried {tries} times"));
                    self.ctx.webhooks.set(&self.webhook, p);
                    tokio::time::sleep(pause).await;
                }
                Then::GiveUp => {
                    tracing::warn!(webhook = %self.webhook.name, event = e.seq, why, "given up");
                    p.given_up += 1;
                    p.failing = Some(why.clone());
                    let action = e.event.action.clone();
                    p.undelivered.push(Undelivered { seq: e.seq, action, at: Time::now(), why });
                    let more = p.undelivered.len().saturating_sub(LISTED);
                    p.undelivered.drain(..more);
                    return;
                }
            }
        }
    }

    async fn secret(&self) -> Result<Secret, String> {
        let key = secret_key(&self.webhook.name);
        let doc = self.ctx.rack.store().get(kind::SECRET, &key).await.map_err(|e| e.to_string())?;
        let doc = doc.ok_or("its secret is gone")?;
        let sealed = serde_json::from_value(doc.value).map_err(|e| e.to_string())?;
        self.ctx.key.open_sealed(&key, &sealed).map_err(|e| e.to_string())
    }

    async fn once(&self, e: &Event) -> Result<(), (Option<u16>, String)> {
        let secret = self.secret().await.map_err(|why| (None, why))?;
        let body = serde_json::to_vec(e).map_err(|e| (None, e.to_string()))?;
        let signed = signature(&secret, Time::now().as_second(), &body);
        let sent = self
            .client
            .post(&self.webhook.url)
            .header("Content-Type", "application/json")
            .header("Provision-Event", e.seq)
            .header("Provision-Signature", signed)
            .body(body)
            .send()
            .await;
        match sent {
            Ok(r) if r.status().is_success() => Ok(()),
            Ok(r) => Err((Some(r.status().as_u16()), format!("it answers {}", r.status()))),
            Err(e) if e.is_timeout() => {
                Err((None, format!("no answer within {} s", PATIENCE.as_secs())))
            }
            Err(e) => Err((None, e.without_url().to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_come_ever_later_and_end_after_a_day() {
        let again = |s| Then::Again(Duration::from_secs(s));
        let now = Duration::ZERO;
        assert_eq!([1, 2, 3].map(|n| then(None, n, now)), [again(1), again(2), again(4)]);
        assert_eq!(then(Some(503), 40, now), again(300));
        assert_eq!(then(None, 3, GIVE_UP), Then::GiveUp);
        // What the receiver does not want, it will not want later.
        assert_eq!(then(Some(400), 3, now), again(4));
        assert_eq!(then(Some(400), 4, now), Then::GiveUp);
        assert_eq!(then(Some(429), 9, now), again(256));
    }

    /// `printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac 'a secret of ours'`
    #[test]
    fn the_signature_is_over_time_and_body() {
        let s = signature(&Secret::new("a secret of ours"), 1_700_000_000, b"{\"a\":1}");
        let openssl = "19cd0e546804e6e3c2f74b9695783785acc9dd0fff5a393201e89b04181d76c2";
        assert_eq!(s, format!("t=1700000000,v1={openssl}"));
        assert_ne!(s, signature(&Secret::new("a secret of ours"), 1_700_000_001, b"{\"a\":1}"));
        assert_ne!(s, signature(&Secret::new("another of ours!"), 1_700_000_000, b"{\"a\":1}"));
    }
}
