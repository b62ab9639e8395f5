//! What the deployment server has, as lines of tables: builds of images,
//! images, promotions, and what is signed about an image.

use super::text::{At, Mark, bytes, took};
use crate::api::deployment::catalog::ShownImage;
use crate::api::deployment::ingest::Attestations;
use crate::ingest::provenance::{Said, read};
use crate::ingest::run::{Origin, Run, RunState};
use crate::model::{Digest, Event, Time};
use crate::tls::signing::VerifyingKey;

/// An image's line.
#[derive(Debug, Clone)]
pub struct ImageRow {
    /// `NAME:TAG`.
    pub reference: String,
    /// Not promoted yet.
    pub staging: bool,
    /// Something is signed about it.
    pub attested: bool,
    /// When its tag was set.
    pub pushed: At,
    /// By whom.
    pub by: String,
    /// Of all its parts.
    pub size: String,
    /// Of its manifest.
    pub digest: String,
}

/// An image's line.
pub fn image(i: ShownImage, now: Time) -> ImageRow {
    ImageRow {
        staging: i.repository.starts_with("staging/"),
        reference: format!("{}:{}", i.repository, i.tag),
        attested: i.attested,
        pushed: At::new(i.pushed, now),
        by: i.by.unwrap_or_default(),
        size: bytes(i.bytes),
        digest: i.digest,
    }
}

/// A build's line, and the head of its page.
#[derive(Debug, Clone)]
pub struct RunRow {
    /// Its id.
    pub id: String,
    /// `NAME:TAG`.
    pub reference: String,
    /// How it stands.
    pub mark: Mark,
    /// Whether it still moves.
    pub moves: bool,
    /// What it is made from.
    pub source: String,
    /// When it was asked for.
    pub asked: At,
    /// By whom.
    pub by: String,
    /// How long it took, or has taken; of a build that waits, how long it waits.
    pub took: String,
    /// What it waits for, does, or failed at.
    pub reason: String,
}

/// A build's line.
pub fn run(r: &Run, now: Time) -> RunRow {
    let mark = match r.state {
        RunState::Done => Mark::DONE,
        RunState::Failed => Mark::FAILED,
        RunState::Cancelled => Mark { symbol: "–", word: "cancelled", tone: "idle" },
        RunState::Queued => Mark { symbol: "○", word: "queued", tone: "idle" },
        RunState::Running => Mark::RUNNING,
    };
    let began = r.started.unwrap_or(r.asked);
    RunRow {
        id: r.id.to_string(),
        reference: r.reference(),
        mark,
        moves: !r.state.is_over(),
        source: r.source.to_string(),
        asked: At::new(r.asked, now),
        took: took(r.ended.unwrap_or(now).duration_since(began)),
        by: r.asked_by.clone(),
        reason: r.reason.clone().unwrap_or_default(),
    }
}

/// What went into a build: word, value, digest.
pub fn inputs(r: &Run) -> Vec<(&'static str, String, String)> {
    let mut out = Vec::new();
    let mut say = |word, value: String, digest: Option<&String>| {
        out.push((word, value, digest.cloned().unwrap_or_default()));
    };
    let folder = match &r.source {
        Origin::Git { folder: Some(f), .. } => format!(", folder {}", f.display()),
        _ => String::new(),
    };
    say("Source", format!("{}{folder}", r.source), r.context_digest.as_ref());
    if let Some(c) = &r.commit {
        let at = r.committed.map(|t| format!(", of {t}")).unwrap_or_default();
        let dirty = if r.dirty { "; the folder differed from it" } else { "" };
        say("Commit", format!("{c}{at}{dirty}"), None);
    }
    let stage = r.target.as_ref().map(|t| format!(", stage {t}")).unwrap_or_default();
    say("Dockerfile", format!("{}{stage}", r.dockerfile), r.dockerfile_digest.as_ref());
    for b in &r.bases {
        say("Base image", b.name.clone(), Some(&b.digest));
    }
    for (name, value) in &r.arguments {
        say("Build argument", format!("{name}={value}"), None);
    }
    let network = if r.network { "the build could reach it" } else { "out of the build's reach" };
    say("Network", network.to_owned(), None);
    if let Some(b) = &r.builder {
        say("Builder", format!("{} {}", b.name, b.version), None);
    }
    out
}

/// What came of a build: word, digest.
pub fn results(r: &Run) -> Vec<(&'static str, String)> {
    let all = [("Image", &r.image_digest), ("Attestation", &r.attestation_digest)];
    all.into_iter().filter_map(|(word, d)| Some((word, d.clone()?))).collect()
}

/// A promotion's line: one that was done, or one that was refused.
#[derive(Debug, Clone)]
pub struct PromotionRow {
    /// When.
    pub at: At,
    /// Whether it was done.
    pub mark: Mark,
    /// From where.
    pub from: String,
    /// To where.
    pub to: String,
    /// By whom.
    pub by: String,
    /// What.
    pub digest: String,
    /// Why it was refused, or what it took the place of.
    pub what: String,
}

/// A promotion's line.
pub fn promotion(e: &Event, now: Time) -> PromotionRow {
    let of = |key: &str| e.event.detail.get(key).cloned().unwrap_or_default();
    let replaced = e.event.detail.get("replaced").map(|d| format!("in place of {d}"));
    PromotionRow {
        at: At::new(e.event.at, now),
        mark: Mark::of_event(e.event.outcome),
        from: of("from"),
        to: of("to"),
        by: e.event.actor.clone(),
        digest: of("digest"),
        what: e.event.detail.get("reason").cloned().or(replaced).unwrap_or_default(),
    }
}

/// One thing that is signed about an image.
#[derive(Debug, Clone)]
pub struct Statement {
    /// Of what kind, or that it is not believed.
    pub title: &'static str,
    /// Good, failed, or not to be believed.
    pub mark: Mark,
    /// Word, value.
    pub facts: Vec<(&'static str, String)>,
    /// The build it names, where it is one of that server.
    pub run: Option<String>,
}

/// What is signed, each checked against the server's key.
pub fn statements(a: &Attestations, now: Time) -> Vec<Statement> {
    let key = VerifyingKey::from_pem(&a.public_key).map_err(|e| e.to_string());
    let image = a.digest.parse::<Digest>().map_err(|e| e.to_string());
    let believed = |envelope: &String| {
        let (key, image) =
            (key.as_ref().map_err(Clone::clone)?, image.as_ref().map_err(Clone::clone)?);
        read(envelope.as_bytes(), key, image).map_err(|e| e.to_string())
    };
    a.envelopes.iter().map(|e| statement(believed(e), now)).collect()
}

fn statement(said: Result<Said, String>, now: Time) -> Statement {
    match said {
        Err(why) => Statement {
            title: "Not believed",
            mark: Mark::FAILED,
            facts: vec![("Why", why)],
            run: None,
        },
        Ok(Said::Checked(c)) => Statement {
            title: "Check",
            mark: if c.passed { Mark { word: "passed", ..Mark::DONE } } else { Mark::FAILED },
            facts: vec![
                ("Check", c.check),
                ("By", c.by),
                ("When", At::new(c.at, now).iso),
                ("Note", c.note),
            ],
            run: None,
        },
        Ok(Said::Provenance(s)) => {
            let dirty = if s.dirty { "; the folder differed from it" } else { "" };
            let mut facts = vec![("Made from", s.source)];
            facts.extend(s.commit.map(|c| ("Commit", format!("{c}{dirty}"))));
            facts.extend(s.bases.into_iter().map(|(n, d)| ("Base image", format!("{n} {d}"))));
            facts.extend([("Asked for by", s.asked_by), ("Built by", s.builder)]);
            facts.extend(s.finished.map(|t| ("Built", At::new(t, now).iso)));
            facts.push(("Signed with key", s.key_id));
            let run = s.invocation.parse::<crate::ingest::RunId>().ok();
            Statement {
                title: "Provenance",
                mark: Mark { word: "signed", ..Mark::DONE },
                facts,
                run: run.map(|r| r.to_string()),
            }
        }
    }
}
