//! Is this push real, and of what? Signatures and bodies of the webhooks of
//! GitHub, GitLab and Gitea, and of our own `post-receive` hook
//! ([`Announcement`]). Pure: headers and body go in, a push comes out. Nothing
//! of a body is looked at before its signature fits.

use super::context::git;
use crate::model::{Digest, Secret, Time};
use http::HeaderMap;
use ring::hmac;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use subtle::ConstantTimeEq;

/// Largest body, in bytes. Forges cut off long lists of commits themselves.
pub const LARGEST: usize = 4 << 20;
/// An announcement of ours is good for so long before and after it is made, in
/// seconds: two clocks may differ, and a push is heard of at once or not.
pub const FRESH: u64 = 600;
/// Our own header with the kind of call.
pub const EVENT: &str = "x-provision-event";
/// Our own header with `sha256=HMAC` over the body.
pub const SIGNATURE: &str = "x-provision-signature";

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forge {
    /// `X-Hub-Signature-256: sha256=HMAC` over the body.
    Github,
    /// `X-Gitlab-Token: SECRET`.
    Gitlab,
    /// `X-Gitea-Signature: HMAC` over the body. Forgejo sends it too.
    Gitea,
    /// `post-receive` of a bare repository, by `provision hook send`.
    Git,
}

/// What `provision hook send` says of one reference that was pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// Address to clone from.
    pub repository: String,
    /// `refs/heads/main`.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Where it was.
    pub before: String,
    /// Where it is.
    pub after: String,
    /// Who pushed.
    pub pusher: String,
    /// When it was made, in seconds since 1970.
    pub sent: u64,
    /// Another for each: the same push twice is two announcements.
    pub delivery: String,
}

impl Announcement {
    /// The body to send, and the value of its [`SIGNATURE`] header.
    pub fn sealed(&self, secret: &Secret) -> (Vec<u8>, String) {
        let body = serde_json::to_vec(self).unwrap_or_default();
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
        let signature = format!("sha256={}", hex::encode(hmac::sign(&key, &body)));
        (body, signature)
    }
}

/// One webhook, as configured.
#[derive(Debug, Clone)]
pub struct Hook {
    /// Who sends.
    pub forge: Forge,
    /// Shared with the forge.
    pub secret: Secret,
    /// Addresses of repositories that may be built, exactly, or with `*` at
    /// the end: `https://git.lab/team/*`. None allows none.
    pub repositories: Vec<String>,
    /// Branches that are built, `*` for any characters. With no branches and
    /// no tags everything that is pushed is built.
    pub branches: Vec<String>,
    /// Tags that are built, likewise.
    pub tags: Vec<String>,
}

/// What was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// Address to clone from.
    pub url: String,
    /// `refs/heads/main`, `refs/tags/v1`.
    pub reference: String,
    /// Commit that it is at now, not the object of a signed tag, where the
    /// forge names both.
    pub commit: String,
    /// Who pushed, as the forge says.
    pub by: String,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Build this.
    Push(Push),
    /// Real, but nothing to build; why, for the answer.
    Nothing(&'static str),
}

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// Answer 401. One text for all cases: who does not know the secret is
    /// told no more.
    #[error("the signature is missing or wrong: check that both sides have the same secret")]
    Signature,
    /// Answer 403.
    #[error("repository {0} is not among those that this webhook may build")]
    Repository(String),
    /// Answer 400.
    #[error("this is no push as {forge:?} sends it: {why}")]
    Body {
        /// Who should have sent it.
        forge: Forge,
        /// What is missing.
        why: String,
    },
    /// Answer 413.
    #[error("the body has more than {LARGEST} bytes")]
    TooLarge,
    /// Answer 401: signed long ago, or by a clock that is wrong.
    #[error(
        "it was signed {0} s away from this server's time, more than {FRESH} s: check both clocks, then push again"
    )]
    Stale(u64),
}

/// Checks a call and reads it.
pub fn hear(hook: &Hook, headers: &HeaderMap, body: &[u8], now: Time) -> Result<Heard, HookError> {
    if body.len() > LARGEST {
        return Err(HookError::TooLarge);
    }
    if !signed(hook, headers, body) {
        return Err(HookError::Signature);
    }
    let (event, wanted): (_, &[&str]) = match hook.forge {
        Forge::Github => ("x-github-event", &["push"]),
        // GitLab has a kind of its own for tags.
        Forge::Gitlab => ("x-gitlab-event", &["Push Hook", "Tag Push Hook"]),
        Forge::Gitea => ("x-gitea-event", &["push"]),
        Forge::Git => (EVENT, &["push"]),
    };
    match header(headers, event).unwrap_or_default() {
        "ping" => Ok(Heard::Nothing("a ping: the secret is right")),
        e if wanted.contains(&e) => push(hook, headers, body, now),
        _ => Ok(Heard::Nothing("not a push")),
    }
}

/// What a delivery is remembered by: if any of these was seen before, it is
/// the same delivery. A forge's own number of it is not signed, so that the
/// body's digest stands beside it; GitLab signs nothing, and pushes the very
/// same body when a branch goes back and forth.
pub fn marks(hook: &Hook, headers: &HeaderMap, body: &[u8]) -> Vec<String> {
    let number = match hook.forge {
        Forge::Github => header(headers, "x-github-delivery"),
        Forge::Gitea => header(headers, "x-gitea-delivery"),
        // The number of an event may be that of two references pushed together.
        Forge::Gitlab => header(headers, "idempotency-key"),
        Forge::Git => None,
    };
    let number = number.map(|n| format!("number {}", Digest::of(n.as_bytes())));
    match (hook.forge, number) {
        (Forge::Gitlab, Some(n)) => vec![n],
        (_, n) => [format!("body {}", Digest::of(body))].into_iter().chain(n).collect(),
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

fn signed(hook: &Hook, headers: &HeaderMap, body: &[u8]) -> bool {
    let secret = hook.secret.expose().as_bytes();
    // An empty secret is none, and a signature with it is worth nothing.
    if secret.is_empty() {
        return false;
    }
    let hmac_fits = |sent: Option<&str>| {
        let Some(Ok(sent)) = sent.map(hex::decode) else { return false };
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        hmac::verify(&key, body, &sent).is_ok()
    };
    match hook.forge {
        Forge::Github => hmac_fits(
            header(headers, "x-hub-signature-256").and_then(|s| s.strip_prefix("sha256=")),
        ),
        Forge::Gitea => hmac_fits(header(headers, "x-gitea-signature")),
        Forge::Git => hmac_fits(header(headers, SIGNATURE).and_then(|s| s.strip_prefix("sha256="))),
        Forge::Gitlab => {
            // Of digests, so that not even the length can be measured.
            let sent = headers.get("x-gitlab-token").map_or(&b""[..], |v| v.as_bytes());
            Digest::of(sent).raw().ct_eq(Digest::of(secret).raw()).into()
        }
    }
}

fn push(hook: &Hook, headers: &HeaderMap, body: &[u8], now: Time) -> Result<Heard, HookError> {
    let bad = |why: String| HookError::Body { forge: hook.forge, why };
    if header(headers, "content-type").is_some_and(|t| t.contains("x-www-form-urlencoded")) {
        let m = "it is a form: choose application/json as content type in the webhook's settings";
        return Err(bad(m.to_owned()));
    }
    let body: Value = serde_json::from_slice(body).map_err(|e| bad(e.to_string()))?;
    let text = |pointer: &str| -> Result<&str, HookError> {
        let found = body.pointer(pointer).and_then(Value::as_str);
        found.ok_or_else(|| bad(format!("{} is missing", &pointer[1..].replace('/', "."))))
    };
    let (url, by, at) = match hook.forge {
        Forge::Github => ("/repository/clone_url", "/pusher/name", "/head_commit/id"),
        Forge::Gitea => ("/repository/clone_url", "/pusher/login", "/head_commit/id"),
        Forge::Gitlab => ("/project/git_http_url", "/user_username", "/checkout_sha"),
        Forge::Git => ("/repository", "/pusher", "/after"),
    };
    if hook.forge == Forge::Git {
        let sent = body.pointer("/sent").and_then(Value::as_u64).unwrap_or(0);
        let off = u64::try_from(now.as_second()).unwrap_or(0).abs_diff(sent);
        if off > FRESH {
            return Err(HookError::Stale(off));
        }
    }
    let (url, by) = (text(url)?, text(by));
    let (reference, after) = (text("/ref")?, text("/after")?);
    git::protocol(url).map_err(|e| bad(e.to_string()))?;
    git::reference(reference).map_err(|e| bad(e.to_string()))?;
    let object = |c: &str| matches!(c.len(), 40 | 64) && c.bytes().all(|b| b.is_ascii_hexdigit());
    if !object(after) {
        return Err(bad("after is no commit".to_owned()));
    }
    if !hook.repositories.iter().any(|allowed| fits(allowed, url)) {
        return Err(HookError::Repository(url.chars().take(200).collect()));
    }
    if after.bytes().all(|b| b == b'0') {
        return Ok(Heard::Nothing("a branch or tag was deleted"));
    }
    let wanted = |some: &[String], kind: &str| {
        let name = reference.strip_prefix(kind);
        name.is_some_and(|n| some.iter().any(|pattern| matches(pattern, n)))
    };
    let all = hook.branches.is_empty() && hook.tags.is_empty();
    if !all && !wanted(&hook.branches, "refs/heads/") && !wanted(&hook.tags, "refs/tags/") {
        return Ok(Heard::Nothing("not a branch or tag that is built"));
    }
    let commit = text(at).ok().filter(|c| object(c)).unwrap_or(after);
    let by = by.unwrap_or("somebody").chars().filter(|c| !c.is_control()).take(100).collect();
    Ok(Heard::Push(Push {
        url: url.to_owned(),
        reference: reference.to_owned(),
        commit: commit.to_ascii_lowercase(),
        by,
    }))
}

/// Whether `pattern`, in which `*` stands for any characters, is `name`.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for p in parts {
        let Some(at) = rest.find(p) else { return false };
        rest = &rest[at + p.len()..];
    }
    rest.ends_with(last)
}

/// The image's tag by a rule in which `{commit}` is the commit's first twelve
/// digits and `{ref}` the name of the branch or tag; what no tag may have in
/// it becomes a dash.
pub fn tag(rule: &str, push: &Push) -> String {
    let name = push.reference.splitn(3, '/').nth(2).unwrap_or(&push.reference);
    let short = push.commit.get(..12).unwrap_or(&push.commit);
    let text = rule.replace("{commit}", short).replace("{ref}", name);
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let clean: String = text.chars().map(|c| if plain(c) { c } else { '-' }).take(128).collect();
    match clean.strip_prefix(['.', '-']) {
        Some(rest) => format!("_{rest}"),
        None => clean,
    }
}

/// `.git` at the end makes no difference; case does.
fn fits(allowed: &str, url: &str) -> bool {
    match allowed.strip_suffix('*') {
        Some(start) => url.starts_with(start) && !url.contains(".."),
        None => allowed.trim_end_matches(".git") == url.trim_end_matches(".git"),
    }
}

#[cfg(test)]
#[path = "webhook_tests.rs"]
mod tests;
