//! `POST /v1/registry/promote`: an image from staging gets its place, by
//! digest, with what attests it. Who may is a right in the target; what the
//! image must have is in the configuration's rules.

use super::Desk;
use super::visitor::Visitor;
use crate::api::Problem;
use crate::api::problem::Json;
use crate::auth::rights::Right;
use crate::config::deployment::{Requirement, Rule};
use crate::ingest::check::latest;
use crate::ingest::provenance::Said;
use crate::model::{NewEvent, Outcome, Time};
use crate::registry::{Digest, Reference, RepositoryName, Tag};
use crate::store::Batch;
use axum::Json as Out;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Reads the content of an attestation of an image with this digest, if it is
/// to be believed; the text of an error is for people.
pub type Judge = Arc<dyn Fn(&[u8], &Digest) -> Result<Said, String> + Send + Sync>;

/// What the registry's upkeep goes by.
pub struct House {
    /// What promotion asks for.
    pub rules: Vec<Rule>,
    /// Judges attestations.
    pub judge: Judge,
    /// The whole registry is read by one at a time.
    pub reading: Arc<Semaphore>,
}

impl House {
    /// With these rules and this judge.
    pub fn new(rules: Vec<Rule>, judge: Judge) -> Self {
        Self { rules, judge, reading: Arc::new(Semaphore::new(1)) }
    }
}

/// What to promote.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PromoteRequest {
    /// `NAME:TAG` or `NAME@DIGEST`.
    #[schema(
        max_length = 255,
        example = "staging/web:1",
        pattern = "^[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|@(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}))$"
    )]
    pub from: String,
    /// `NAME:TAG`; without it, `from` without `staging/`.
    #[schema(
        max_length = 255,
        example = "web:1",
        pattern = "^[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+(([.]|_|__|-+)[a-z0-9]+)*)*:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$"
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Also when the tag points to something else.
    #[serde(default)]
    pub replace: bool,
}

/// What was promoted.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Promoted {
    /// From where.
    pub from: String,
    /// To where.
    pub to: String,
    /// What.
    pub digest: String,
    /// Manifests that are there now.
    pub manifests: u64,
    /// Blobs that were mounted.
    pub blobs: u64,
    /// Where the tag pointed before.
    pub replaced: Option<String>,
}

/// `NAME:TAG`, `NAME@DIGEST`.
///
/// # Errors
/// What would be right.
pub fn image(text: &str) -> Result<(RepositoryName, Reference), Problem> {
    let wrong = || Problem::bad(format!("{text:?} is neither NAME:TAG nor NAME@DIGEST"));
    let bad = |e: crate::model::Invalid| Problem::bad(e.to_string());
    if let Some((name, digest)) = text.split_once('@') {
        let digest: Digest = digest.parse().map_err(bad)?;
        return Ok((name.parse().map_err(bad)?, Reference::Digest(digest)));
    }
    let (name, tag) = text.rsplit_once(':').ok_or_else(wrong)?;
    let tag: Tag = tag.parse().map_err(bad)?;
    Ok((name.parse().map_err(bad)?, Reference::Tag(tag)))
}

fn target(r: &PromoteRequest) -> Result<(RepositoryName, Tag), Problem> {
    let to = match (&r.to, r.from.strip_prefix("staging/")) {
        (Some(to), _) => to.clone(),
        (None, Some(rest)) => rest.to_owned(),
        (None, None) => {
            let m = format!(
                "{:?} is not below staging/, so say where it is to go: --to NAME:TAG",
                r.from
            );
            // Well formed, and nobody can say where to.
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, m));
        }
    };
    match image(&to)? {
        (name, Reference::Tag(t)) => Ok((name, t)),
        _ => Err(Problem::bad(format!("{to:?}: what is promoted needs a tag: NAME:TAG"))),
    }
}

/// Gives an image its place, by digest.
#[utoipa::path(
    post,
    path = "/v1/registry/promote",
    tag = "registry",
    request_body(content = PromoteRequest),
    responses((status = 200, description = "What was promoted", body = Promoted))
)]
pub(super) async fn promote(
    visitor: Visitor,
    State(desk): State<Arc<Desk>>,
    Json(r): Json<PromoteRequest>,
) -> Result<Out<Promoted>, Problem> {
    let (from, reference) = image(&r.from).map_err(|p| p.at("/from"))?;
    let (to, tag) = target(&r).map_err(|p| p.at("/to"))?;
    visitor.needs(&desk, from.as_str(), Right::Pull).await?;
    visitor.needs(&desk, to.as_str(), Right::Promote).await?;
    let digest = desk.registry.digest_of(&from, &reference).await?;
    let digest = digest.ok_or_else(|| Problem::not_found(format!("{} is not here", r.from)))?;
    let event = |outcome| {
        NewEvent::new(Time::now(), &visitor.0.name(), "image.promote", outcome)
            .with("from", &r.from)
            .with("to", format!("{to}:{tag}"))
            .with("digest", &digest)
    };
    let refused = async |p: Problem| {
        let e = event(Outcome::Refused).with("reason", &p.detail);
        // A refusal stands also when it cannot be written down.
        let _ = desk.book.commit(Batch::new().event(e)).await;
        Err(p)
    };
    if let Err(p) = fits(&desk, &from, &digest, &to).await {
        return refused(p).await;
    }
    // What cannot be written down is not done.
    desk.book.store().health().await?;
    let copied = match desk.registry.copy(&from, &digest, &to, Some(&tag), r.replace).await {
        Ok(c) => c,
        Err(f) => return refused(f.into()).await,
    };
    let mut done = event(Outcome::Ok).with("manifests", copied.manifests);
    if let Some(old) = &copied.replaced {
        done = done.with("replaced", old);
    }
    desk.book.commit(Batch::new().event(done)).await?;
    Ok(Out(Promoted {
        from: format!("{from}@{digest}"),
        to: format!("{to}:{tag}"),
        digest: digest.to_string(),
        manifests: copied.manifests,
        blobs: copied.blobs,
        replaced: copied.replaced.map(|d| d.to_string()),
    }))
}

/// Whether the rules for `to` hold for `digest` of `from`.
async fn fits(
    desk: &Desk,
    from: &RepositoryName,
    digest: &Digest,
    to: &RepositoryName,
) -> Result<(), Problem> {
    let of = |r: &&Rule| to.as_str().starts_with(&r.prefix);
    let rules: Vec<&Rule> = desk.house.rules.iter().filter(of).collect();
    if rules.is_empty() {
        return Ok(());
    }
    let (mut checks, mut provenance, mut why) = (Vec::new(), false, Vec::new());
    for a in desk.registry.attestations(from, digest).await? {
        match (desk.house.judge)(&a.bytes, digest) {
            Ok(Said::Checked(c)) => checks.push(c),
            Ok(Said::Provenance(_)) => provenance = true,
            Err(e) => why.push(e),
        }
    }
    let refused = |m: String| Err(Problem::unfit(m).at("/from"));
    for rule in rules {
        for require in &rule.require {
            let prefix = &rule.prefix;
            match require {
                Requirement::Attestation if provenance => {}
                Requirement::Attestation => {
                    let rule = format!("the rule for {prefix:?} asks for an attestation");
                    return refused(match why.as_slice() {
                        [] => format!("{rule}, and nothing attests {digest} in {from}"),
                        some => {
                            format!("{rule}, and none of {digest} is good: {}", some.join("; "))
                        }
                    });
                }
                Requirement::Check(name) => match latest(&checks, name) {
                    Some(c) if c.passed => {}
                    Some(c) => {
                        return refused(format!(
                            "the rule for {prefix:?} asks for the check {name}, which {digest} failed at {:.0}, as {} says: {}",
                            c.at, c.by, c.note
                        ));
                    }
                    None => {
                        return refused(format!(
                            "the rule for {prefix:?} asks for the check {name}, of which nothing is known for {digest}: `provision check {from}@{digest} {name} --passed`"
                        ));
                    }
                },
            }
        }
    }
    Ok(())
}
