//! Is this push real, and of what? Signatures and bodies of the webhooks of
//! GitHub, GitLab and Gitea. Pure: headers and body go in, a push comes out.
//! Nothing of a body is looked at before its signature fits.

use super::context::git;
use crate::model::{Digest, Secret};
use http::HeaderMap;
use ring::hmac;
use serde_json::Value;
use subtle::ConstantTimeEq;

/// Largest body, in bytes. Forges cut off long lists of commits themselves.
pub const LARGEST: usize = 4 << 20;

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forge {
    /// `X-Hub-Signature-256: sha256=HMAC` over the body.
    Github,
    /// `X-Gitlab-Token: SECRET`.
    Gitlab,
    /// `X-Gitea-Signature: HMAC` over the body. Forgejo sends it too.
    Gitea,
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
    /// Branches that are built; none means all.
    pub branches: Vec<String>,
}

/// What was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// Address to clone from.
    pub url: String,
    /// `refs/heads/main`, `refs/tags/v1`.
    pub reference: String,
    /// Commit that it is at now.
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
}

/// Checks a call and reads it.
pub fn hear(hook: &Hook, headers: &HeaderMap, body: &[u8]) -> Result<Heard, HookError> {
    if body.len() > LARGEST {
        return Err(HookError::TooLarge);
    }
    if !signed(hook, headers, body) {
        return Err(HookError::Signature);
    }
    let (event, wanted) = match hook.forge {
        Forge::Github => ("x-github-event", "push"),
        Forge::Gitlab => ("x-gitlab-event", "Push Hook"),
        Forge::Gitea => ("x-gitea-event", "push"),
    };
    let event = header(headers, event).unwrap_or_default();
    // GitLab has a kind of its own for tags.
    if event != wanted && event != "Tag Push Hook" {
        return Ok(Heard::Nothing("not a push"));
    }
    push(hook, body)
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
        Forge::Gitlab => {
            // Of digests, so that not even the length can be measured.
            let sent = headers.get("x-gitlab-token").map_or(&b""[..], |v| v.as_bytes());
            Digest::of(sent).raw().ct_eq(Digest::of(secret).raw()).into()
        }
    }
}

fn push(hook: &Hook, body: &[u8]) -> Result<Heard, HookError> {
    let bad = |why: String| HookError::Body { forge: hook.forge, why };
    let body: Value = serde_json::from_slice(body).map_err(|e| bad(e.to_string()))?;
    let text = |pointer: &str| -> Result<&str, HookError> {
        let found = body.pointer(pointer).and_then(Value::as_str);
        found.ok_or_else(|| bad(format!("{} is missing", &pointer[1..].replace('/', "."))))
    };
    let (url, by) = match hook.forge {
        Forge::Github => (text("/repository/clone_url")?, text("/pusher/name")),
        Forge::Gitea => (text("/repository/clone_url")?, text("/pusher/login")),
        Forge::Gitlab => (text("/project/git_http_url")?, text("/user_username")),
    };
    let (reference, commit) = (text("/ref")?, text("/after")?);
    git::protocol(url).map_err(|e| bad(e.to_string()))?;
    git::reference(reference).map_err(|e| bad(e.to_string()))?;
    if !matches!(commit.len(), 40 | 64) || !commit.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(bad("after is no commit".to_owned()));
    }
    if !hook.repositories.iter().any(|allowed| fits(allowed, url)) {
        return Err(HookError::Repository(url.chars().take(200).collect()));
    }
    if commit.bytes().all(|b| b == b'0') {
        return Ok(Heard::Nothing("a branch or tag was deleted"));
    }
    let branch = reference.strip_prefix("refs/heads/");
    if !hook.branches.is_empty() && !hook.branches.iter().any(|b| Some(b.as_str()) == branch) {
        return Ok(Heard::Nothing("not a branch that is built"));
    }
    let by = by.unwrap_or("somebody").chars().filter(|c| !c.is_control()).take(100).collect();
    Ok(Heard::Push(Push {
        url: url.to_owned(),
        reference: reference.to_owned(),
        commit: commit.to_ascii_lowercase(),
        by,
    }))
}

/// `.git` at the end makes no difference; case does.
fn fits(allowed: &str, url: &str) -> bool {
    match allowed.strip_suffix('*') {
        Some(start) => url.starts_with(start) && !url.contains(".."),
        None => allowed.trim_end_matches(".git") == url.trim_end_matches(".git"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GITHUB: &[u8] = include_bytes!("../../tests/fixtures/webhooks/github-push.json");
    const GITLAB: &[u8] = include_bytes!("../../tests/fixtures/webhooks/gitlab-push.json");
    const GITEA: &[u8] = include_bytes!("../../tests/fixtures/webhooks/gitea-push.json");

    fn hook(forge: Forge) -> Hook {
        Hook {
            forge,
            secret: Secret::new("It's a Secret to Everybody"),
            repositories: vec![
                "https://git.example/team/*".into(),
                "https://git.example/one".into(),
            ],
            branches: vec![],
        }
    }

    fn sign(hook: &Hook, body: &[u8]) -> HeaderMap {
        let key = hmac::Key::new(hmac::HMAC_SHA256, hook.secret.expose().as_bytes());
        let mac = hex::encode(hmac::sign(&key, body));
        let pairs = match hook.forge {
            Forge::Github => [
                ("x-github-event", "push".into()),
                ("x-hub-signature-256", format!("sha256={mac}")),
            ],
            Forge::Gitea => [("x-gitea-event", "push".into()), ("x-gitea-signature", mac)],
            Forge::Gitlab => [
                ("x-gitlab-event", "Push Hook".into()),
                ("x-gitlab-token", hook.secret.expose().to_owned()),
            ],
        };
        pairs
            .map(|(k, v): (&'static str, String)| (k.parse().unwrap(), v.parse().unwrap()))
            .into_iter()
            .collect()
    }

    fn heard(forge: Forge, body: &[u8]) -> Result<Heard, HookError> {
        let hook = hook(forge);
        hear(&hook, &sign(&hook, body), body)
    }

    /// The example of GitHub's page on validating deliveries.
    #[test]
    fn the_published_example_of_a_signature_fits() {
        let hook = hook(Forge::Github);
        let mut headers = HeaderMap::new();
        let mac = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        headers.insert("x-hub-signature-256", mac.parse().unwrap());
        assert!(signed(&hook, &headers, b"Hello, World!"));
        assert!(!signed(&hook, &headers, b"Hello, World?"));
    }

    #[test]
    fn a_push_of_each_forge_gives_repository_reference_and_commit() {
        for (forge, body) in
            [(Forge::Github, GITHUB), (Forge::Gitlab, GITLAB), (Forge::Gitea, GITEA)]
        {
            let Ok(Heard::Push(push)) = heard(forge, body) else {
                panic!("{:?}", heard(forge, body))
            };
            assert_eq!(push.url, "https://git.example/team/web.git");
            assert_eq!(push.reference, "refs/heads/main");
            assert_eq!(push.commit, "da1560886d4f094c3e6c9ef40349f7d38b5d27d7");
            assert_eq!(push.by, "ada");
        }
    }

    #[test]
    fn without_the_right_signature_nothing_is_heard() {
        for (forge, body) in
            [(Forge::Github, GITHUB), (Forge::Gitlab, GITLAB), (Forge::Gitea, GITEA)]
        {
            let (hook, mut other) = (hook(forge), hook(forge));
            other.secret = Secret::new("x");
            assert_eq!(hear(&hook, &sign(&other, body), body), Err(HookError::Signature));
            assert_eq!(hear(&hook, &HeaderMap::new(), body), Err(HookError::Signature));
            other.secret = Secret::new("");
            assert_eq!(hear(&other, &sign(&other, body), body), Err(HookError::Signature));
            if forge != Forge::Gitlab {
                assert_eq!(hear(&hook, &sign(&hook, body), &body[1..]), Err(HookError::Signature));
            }
        }
    }

    #[test]
    fn other_repositories_branches_and_events_are_not_built() {
        let mut h = hook(Forge::Gitea);
        h.repositories =
            vec!["https://git.example/team/we".into(), "https://git.example/other/*".into()];
        assert!(matches!(hear(&h, &sign(&h, GITEA), GITEA), Err(HookError::Repository(_))));
        h.repositories = vec!["https://git.example/team/web".into()];
        assert!(matches!(hear(&h, &sign(&h, GITEA), GITEA), Ok(Heard::Push(_))));
        h.branches = vec!["release".into()];
        assert!(matches!(hear(&h, &sign(&h, GITEA), GITEA), Ok(Heard::Nothing(_))));
        let mut ping = sign(&h, GITEA);
        ping.insert("x-gitea-event", "ping".parse().unwrap());
        assert_eq!(hear(&h, &ping, GITEA), Ok(Heard::Nothing("not a push")));
        let text = String::from_utf8(GITEA.to_vec()).unwrap();
        let gone = text.replace("da1560886d4f094c3e6c9ef40349f7d38b5d27d7", &"0".repeat(40));
        assert!(matches!(heard(Forge::Gitea, gone.as_bytes()), Ok(Heard::Nothing(_))));
        for (from, to) in [
            ("https://git.example/team/web.git", "ext::sh"),
            ("refs/heads/main", "--upload-pack=x"),
        ] {
            let said = heard(Forge::Gitea, text.replace(from, to).as_bytes());
            assert!(matches!(said, Err(HookError::Body { .. })), "{said:?}");
        }
    }

    proptest! {
        #[test]
        fn no_body_panics(body in "[\\[\\]{}\":,a-z0]{0,60}") {
            for forge in [Forge::Github, Forge::Gitlab, Forge::Gitea] {
                let _ = heard(forge, body.as_bytes());
            }
        }
    }
}
