//! The container engine on the node, by the Engine API over its Unix socket:
//! what happens to containers, which run, where their images come from.
//!
//! Requests are HTTP/1.0: the answer then ends where the connection does, and
//! may not come in chunks (RFC 9112 §6.1, §7.1), so that a stream of events is
//! a stream of lines.

use crate::model::Container;
use crate::model::Time;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the engine listens.
pub const SOCKET: &str = "/run/docker.sock";
/// Longest answer that is read whole.
const LARGEST: u64 = 8 << 20;
/// Longest head of an answer, and longest line of a stream.
const LONGEST_LINE: u64 = 64 << 10;

/// The engine.
#[derive(Debug, Clone)]
pub struct Engine(PathBuf);

/// One line of `/events`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Event {
    /// `start`, `die`, `kill`, `health_status: healthy` …
    pub action: String,
    /// Which container.
    pub actor: Actor,
    /// Nanoseconds since 1970.
    #[serde(rename = "timeNano", default)]
    pub nanoseconds: i64,
}

/// The container of an event.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Actor {
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// `image`, `name`, `exitCode`, `signal` and all labels.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

impl Event {
    /// When.
    pub fn at(&self) -> Time {
        Time::from_nanosecond(i128::from(self.nanoseconds)).unwrap_or_default()
    }

    /// An attribute, empty if there is none.
    pub fn attribute(&self, name: &str) -> &str {
        self.actor.attributes.get(name).map_or("", String::as_str)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    image: String,
    #[serde(rename = "ImageID", default)]
    image_id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    #[serde(default)]
    image: String,
    config: Configured,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Configured {
    #[serde(default)]
    image: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    #[serde(default)]
    repo_digests: Option<Vec<String>>,
}

/// Which events are of interest.
const EVENTS: &str = r#"{"type":["container"],"event":["start","die","kill","health_status"]}"#;

impl Engine {
    /// The one that listens at `socket`.
    pub fn at(socket: &Path) -> Self {
        Self(socket.to_owned())
    }

    /// Events from the instant `since` on, for ever, one at a time.
    ///
    /// # Errors
    /// The engine is not there or refuses.
    pub fn events(
        &self,
        since: Time,
    ) -> io::Result<impl Iterator<Item = io::Result<Event>> + Send + use<>> {
        let n = since.as_nanosecond();
        let path = format!(
            "/events?since={}.{:09}&filters={}",
            n.div_euclid(1_000_000_000),
            n.rem_euclid(1_000_000_000),
            escaped(EVENTS)
        );
        // No time limit between two lines: a quiet node is a good node.
        let mut body = self.get(&path, None)?;
        Ok(std::iter::from_fn(move || next_line(&mut body).transpose()).map(|line| {
            serde_json::from_slice(&line?)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
        }))
    }

    /// Containers that run, by id.
    ///
    /// # Errors
    /// The engine.
    pub fn running(&self) -> io::Result<Vec<(String, Container)>> {
        let all: Vec<Listed> = self.json("/containers/json")?;
        let mut out = Vec::new();
        for l in all {
            let name = l.names.first().map_or("", |n| n.trim_start_matches('/')).to_owned();
            let digest = self.digest(&l.image_id, &l.image).unwrap_or_default();
            out.push((l.id, Container { name, image: l.image, digest }));
        }
        Ok(out)
    }

    /// The container of `event`; also when it is gone already.
    pub fn container(&self, event: &Event) -> Container {
        let asked = event.attribute("image").to_owned();
        let found: io::Result<Inspected> =
            self.json(&format!("/containers/{}/json", escaped(&event.actor.id)));
        let (id, image) = match found {
            Ok(f) if !f.config.image.is_empty() => (f.image, f.config.image),
            _ => (asked.clone(), asked),
        };
        let digest = self.digest(&id, &image).unwrap_or_default();
        Container { name: event.attribute("name").to_owned(), image, digest }
    }

    /// Digest of the manifest behind image `id`, in the registry that `asked`
    /// names if it is there.
    fn digest(&self, id: &str, asked: &str) -> io::Result<String> {
        let image: Image = self.json(&format!("/images/{}/json", escaped(id)))?;
        Ok(of_repository(&image.repo_digests.unwrap_or_default(), asked))
    }

    fn json<T: DeserializeOwned>(&self, path: &str) -> io::Result<T> {
        let body = self.get(path, Some(Duration::from_secs(20)))?;
        serde_json::from_reader(body.take(LARGEST))
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }

    fn get(&self, path: &str, patience: Option<Duration>) -> io::Result<BufReader<UnixStream>> {
        let stream = UnixStream::connect(&self.0)?;
        stream.set_write_timeout(Some(Duration::from_secs(20)))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        (&stream).write_all(format!("GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n").as_bytes())?;
        let mut body = BufReader::new(stream);
        head(&mut body, path)?;
        body.get_ref().set_read_timeout(patience)?;
        Ok(body)
    }
}

/// Reads status line and headers; only 200 goes on.
fn head(body: &mut impl BufRead, path: &str) -> io::Result<()> {
    let bad = |m: String| io::Error::new(io::ErrorKind::InvalidData, m);
    let status = next_line(body)?.ok_or_else(|| bad(format!("{path}: no answer")))?;
    let status = String::from_utf8_lossy(&status).trim().to_owned();
    for _ in 0..100 {
        match next_line(body)? {
            Some(line) if line.trim_ascii().is_empty() => {
                return match status.split(' ').nth(1) {
                    Some("200") => Ok(()),
                    _ => Err(bad(format!("{path}: {status}"))),
                };
            }
            Some(_) => {}
            None => break,
        }
    }
    Err(bad(format!("{path}: the answer has no end of its head")))
}

/// A line without its end; `None` at the end of the stream.
fn next_line(from: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let n = from.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) => {
            let m = format!("a line was cut off after {n} bytes");
            Err(io::Error::new(io::ErrorKind::InvalidData, m))
        }
    }
}

/// Percent-encoded, but for what may stand in a path.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"._:/@-".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

/// Of `repo@digest` entries the digest for the repository of `asked`, else
/// the first.
fn of_repository(digests: &[String], asked: &str) -> String {
    let bare = |image: &str| {
        let name = image.split('@').next().unwrap_or_default();
        let end = name.rfind('/').unwrap_or(0);
        match name[end..].find(':') {
            Some(colon) => name[..end + colon].to_owned(),
            None => name.to_owned(),
        }
    };
    let wanted = bare(asked);
    let all = || digests.iter().filter_map(|d| d.split_once('@'));
    let found = all().find(|(repository, _)| *repository == wanted).or_else(|| all().next());
    found.map(|(_, digest)| digest.to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_the_engine_is_read() {
        let line = r#"{"status":"die","id":"7f","from":"10.77.0.2:5000/staging/hello:1","Type":"container","Action":"die","Actor":{"ID":"7f","Attributes":{"execDuration":"0","exitCode":"3","image":"10.77.0.2:5000/staging/hello:1","name":"web"}},"scope":"local","time":1795254000,"timeNano":1795254000123456789}"#;
        let e: Event = serde_json::from_str(line).unwrap();
        assert_eq!((e.action.as_str(), e.actor.id.as_str()), ("die", "7f"));
        assert_eq!((e.attribute("exitCode"), e.attribute("name")), ("3", "web"));
        assert_eq!(e.attribute("none"), "");
        assert_eq!(e.at().as_nanosecond(), 1_795_254_000_123_456_789);
    }

    #[test]
    fn the_digest_is_of_the_repository_that_was_asked_for() {
        let all = ["r:5000/a@sha256:1".to_owned(), "r:5000/staging/a@sha256:2".to_owned()];
        assert_eq!(of_repository(&all, "r:5000/staging/a:1"), "sha256:2");
        assert_eq!(of_repository(&all, "r:5000/staging/a"), "sha256:2");
        assert_eq!(of_repository(&all, "r:5000/a@sha256:1"), "sha256:1");
        assert_eq!(of_repository(&all, "other"), "sha256:1");
        assert_eq!(of_repository(&[], "other"), "");
    }

    #[test]
    fn an_answer_is_good_when_its_status_is_200() {
        let read = |text: &str| head(&mut text.as_bytes(), "/x").map_err(|e| e.to_string());
        assert_eq!(read("HTTP/1.0 200 OK\r\nA: b\r\n\r\nrest"), Ok(()));
        assert_eq!(
            read("HTTP/1.0 404 Not Found\r\n\r\n"),
            Err("/x: HTTP/1.0 404 Not Found".to_owned())
        );
        assert!(read("").is_err() && read("HTTP/1.0 200 OK\r\n").is_err());
        assert!(read(&format!("HTTP/1.0 200 OK\r\nA: {}", "x".repeat(1 << 20))).is_err());
    }
}
