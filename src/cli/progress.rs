//! How far an upload is: a bar on a terminal, one line at its end elsewhere.

use super::Session;
use super::output::bytes as shown;
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use indicatif::{ProgressBar, ProgressStyle};
use std::io;
use std::time::Duration;

/// `stream`, watched as it is sent; `total` in bytes where it is known.
pub fn watched(
    s: &Session,
    what: &str,
    total: Option<u64>,
    stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let mut sent = Sent { what: what.to_owned(), bytes: 0, bar: None, quiet: s.out.is_json() };
    if s.out.is_terminal() {
        let (bar, form) = match total {
            Some(n) => (
                ProgressBar::new(n),
                "{msg}  {wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta}",
            ),
            None => (ProgressBar::new_spinner(), "{msg}  {bytes}  {bytes_per_sec}"),
        };
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style);
        }
        bar.set_message(format!("sending {what}"));
        bar.enable_steady_tick(Duration::from_millis(200));
        sent.bar = Some(bar);
    }
    let mut stream = Box::pin(stream);
    futures::stream::poll_fn(move |c| {
        let next = stream.poll_next_unpin(c);
        if let std::task::Poll::Ready(Some(Ok(piece))) = &next {
            sent.bytes += piece.len() as u64;
            if let Some(b) = &sent.bar {
                b.set_position(sent.bytes);
            }
        }
        next
    })
}

struct Sent {
    what: String,
    bytes: u64,
    bar: Option<ProgressBar>,
    quiet: bool,
}

impl Drop for Sent {
    fn drop(&mut self) {
        match &self.bar {
            Some(b) => b.finish_and_clear(),
            None if self.quiet => {}
            None => eprintln!("sent {}: {}", self.what, shown(self.bytes)),
        }
    }
}
