//! Work that takes minutes and has no node: begun as an operation, watched by
//! its id, its end written down.

use super::{Caller, Ctx, Problem, Report};
use crate::model::{Name, NewEvent, Operation, OperationKind, Outcome, Time};
use axum::Json as Out;
use axum::http::StatusCode;
use serde_json::Value;
use std::sync::Arc;

/// What is begun, as the record calls it.
pub(super) struct Work {
    /// Kind of operation.
    pub kind: OperationKind,
    /// Kind of event, such as `image.build`.
    pub event: &'static str,
    /// What it is about, such as `image`, and its name.
    pub about: (&'static str, Name),
}

/// Begins it. What comes out is the operation's result; a `digest` in it
/// stands in the record too.
pub(super) async fn start<F, W>(
    ctx: &Arc<Ctx>,
    caller: Caller,
    what: Work,
    work: W,
) -> Result<(StatusCode, Out<Operation>), Problem>
where
    F: Future<Output = Result<Value, String>> + Send + 'static,
    W: FnOnce(Report) -> F,
{
    let (about, name) = what.about;
    let event = |o| NewEvent::new(Time::now(), &caller.name, what.event, o).with(about, &name);
    let o = ctx.rack.begin(what.kind, None, &caller.asker(), event(Outcome::Info)).await?;
    let (id, rack) = (o.id.clone(), ctx.rack.clone());
    let (reporting, progress_id) = (rack.clone(), id.clone());
    let progress: Report =
        Arc::new(move |t: &str, done, total| reporting.progress(&progress_id, t, done, total));
    let work = work(progress);
    let actor = caller.name.clone();
    tokio::spawn(async move {
        let done = work.await;
        let outcome = if done.is_ok() { Outcome::Ok } else { Outcome::Failed };
        let mut e = NewEvent::new(Time::now(), &actor, what.event, outcome).with(about, &name);
        match &done {
            Ok(v) => {
                if let Some(d) = v.get("digest").and_then(Value::as_str) {
                    e = e.with("digest", d);
                }
            }
            Err(why) => e = e.with("reason", why),
        }
        if let Err(e) = rack.end(&id, done, e).await {
            tracing::error!(operation = %id, error = %e, "an operation's end is not written down");
        }
    });
    Ok((StatusCode::ACCEPTED, Out(o)))
}
