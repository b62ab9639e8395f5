//! Sees to it that a server's certificate is exchanged while it serves: looks
//! at its files by the clock and at SIGHUP, and tells the log and the record
//! what came of it. Idle it costs two calls of the system each time.

use crate::api::Clerk;
use crate::model::{NewEvent, Outcome, Time};
use crate::store::Batch;
use crate::tls::rotate::{News, Rotation};
use anyhow::{Context as _, Result};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Between two looks at the files. A new pair is used at the second one that
/// finds it unchanged.
pub const LOOK: Duration = Duration::from_secs(10);
/// News kept for the record while the store is away; the log has them all.
const KEPT: usize = 16;

/// What is told of `news`, as the record has it.
fn event(news: &News, file: &str, now: Time) -> NewEvent {
    let of =
        |action, outcome| NewEvent::new(now, "server", action, outcome).with("certificate", file);
    match news {
        News::Changed { old, new } => of("certificate.rotate", Outcome::Ok)
            .with("serial", &new.serial)
            .with("until", new.until)
            .with("replaced", &old.serial),
        News::Refused { why, still } => of("certificate.rotate", Outcome::Refused)
            .with("reason", why)
            .with("still", &still.serial)
            .with("until", still.until),
        News::Ends { facts, urgency } => {
            let over = *urgency == 3;
            let reason = match over {
                true => "it has ended: clients that check it are refused by themselves",
                false => "it ends soon",
            };
            of("certificate.ends", if over { Outcome::Failed } else { Outcome::Info })
                .with("serial", &facts.serial)
                .with("until", facts.until)
                .with("reason", format!("{reason}; put another pair of files in its place, it is taken up without a restart"))
        }
    }
}

fn log(news: &News, file: &str) {
    match news {
        News::Changed { old, new } => tracing::info!(
            certificate = file, serial = new.serial, until = %new.until, replaced = old.serial,
            "new connections get another certificate"
        ),
        News::Refused { why, still } => tracing::error!(
            certificate = file, error = why, still = still.serial, until = %still.until,
            "the certificate's files cannot be used; the one in use stays"
        ),
        News::Ends { facts, urgency: 3 } => {
            tracing::error!(certificate = file, until = %facts.until, "the certificate has ended");
        }
        News::Ends { facts, .. } => {
            tracing::warn!(certificate = file, until = %facts.until, "the certificate ends soon");
        }
    }
}

/// Looks every `every` and at SIGHUP, until `stop`.
///
/// # Errors
/// No signals, or a look that broke off.
pub async fn watch<C: Clerk>(
    clerk: Arc<C>,
    mut rotation: Rotation,
    every: Duration,
    stop: CancellationToken,
) -> Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let file = rotation.held().certificate().display().to_string();
    let mut untold: VecDeque<NewEvent> = VecDeque::new();
    let mut told = false;
    loop {
        let now = Time::now();
        // A file system may hang: not on a thread that serves.
        let look = tokio::task::spawn_blocking(move || {
            let news = rotation.look(now, told);
            (rotation, news)
        });
        let news;
        (rotation, news) = look.await.context("the look at the certificate's files")?;
        for n in &news {
            log(n, &file);
            untold.push_back(event(n, &file, now));
        }
        while untold.len() > KEPT {
            untold.pop_front();
        }
        // What cannot be written down now is at the next look.
        while let Some(e) = untold.front() {
            if clerk.commit(Batch::new().event(e.clone())).await.is_err() {
                break;
            }
            untold.pop_front();
        }
        told = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(()) = hangup.recv() => true,
            () = tokio::time::sleep(every) => false,
        };
    }
}
