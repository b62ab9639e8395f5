//! Work that takes minutes and has no node: begun as an operation, watched by
//! its id, its end written down. All of it is done in a place of its own until
//! it is complete, so it can be cancelled at any time.

use super::{Caller, Ctx, Problem};
use crate::model::{Name, NewEvent, Operation, OperationKind, Outcome, Time};
use axum::Json as Out;
use axum::http::StatusCode;
use serde_json::Value;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Told the step, what of it is done, and all of it.
type Tell = Arc<dyn Fn(&str, u64, u64) + Send + Sync>;

/// Told what such work does, and asked whether it is still wanted.
#[derive(Clone)]
pub struct Report {
    tell: Tell,
    stop: CancellationToken,
}

impl Report {
    /// The step, what of it is done, and all of it.
    pub fn tell(&self, step: &str, done: u64, total: u64) {
        (self.tell)(step, done, total);
    }

    /// Whether it was cancelled: the work ends soon, with any error.
    pub fn is_cancelled(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Says `why` and waits for `turn`.
    ///
    /// # Errors
    /// It was cancelled meanwhile.
    pub async fn wait<T>(&self, why: &str, turn: impl Future<Output = T>) -> Result<T, String> {
        self.tell(why, 0, 0);
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err("cancelled".to_owned()),
            t = turn => Ok(t),
        }
    }
}

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
    let tell =
        Arc::new(move |t: &str, done, total| reporting.progress(&progress_id, t, done, total));
    let work = work(Report { tell, stop: rack.stops.add(&id) });
    let actor = caller.name.clone();
    tokio::spawn(async move {
        let done = work.await;
        // What was complete before it could be stopped is done all the same.
        let done = done.map_err(|why| rack.stops.reason(&id).unwrap_or(why));
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
