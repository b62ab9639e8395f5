//! One file to one client, on its own task and its own socket (whose port is
//! the server's transfer identifier, RFC 1350 §4).

use super::packet::{self, ErrorCode, MAX_REQUEST, Mode, Packet, Request};
use super::terms::Terms;
use super::window::{Heard, Window};
use super::{Opened, Settings, SightingKind, Source, SourceError};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

/// No wait is longer, however often it was doubled.
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// Each read of a file goes through a thread of tokio's; this makes them few.
const READ_AHEAD: usize = 32 << 10;

/// What the server sees of a running transfer: whom to drop first.
#[derive(Debug, Default)]
pub struct Activity {
    /// It has ended, whichever way.
    pub over: AtomicBool,
    /// The client has confirmed something.
    pub alive: AtomicBool,
    /// Milliseconds from the server's start to the last thing heard.
    pub last: AtomicU64,
    /// Bytes confirmed.
    pub bytes: AtomicU64,
}

/// One transfer.
pub struct Transfer<'a> {
    pub peer: SocketAddr,
    pub request: &'a Request,
    pub settings: &'a Settings,
    pub activity: &'a Activity,
    pub epoch: Instant,
}

/// How a transfer ends before its file is sent.
enum End {
    Client(String),
    Silent,
    Io(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        // The client's port is closed: it is gone, as if it had said so.
        if error.kind() == io::ErrorKind::ConnectionRefused {
            return Self::Client("port closed".to_owned());
        }
        Self::Io(error)
    }
}

impl Transfer<'_> {
    /// Opens `path` and sends it; `started` is called once it is found.
    pub async fn run(&self, path: &str, source: &dyn Source, started: impl Fn()) -> SightingKind {
        let socket = match self.socket().await {
            Ok(socket) => socket,
            Err(error) => return SightingKind::Failed(error.to_string()),
        };
        let opened = match source.open(path, self.peer).await {
            Ok(opened) => opened,
            Err(error) => {
                let (code, kind) = match &error {
                    SourceError::NotFound => (ErrorCode::NotFound, SightingKind::NotFound),
                    SourceError::Refused(why) => {
                        (ErrorCode::Access, SightingKind::Refused((*why).to_owned()))
                    }
                    SourceError::Io(e) => (ErrorCode::Other, SightingKind::Failed(e.to_string())),
                };
                let _ = socket.send(&packet::error(code, &error.to_string())).await;
                return kind;
            }
        };
        started();
        match self.send(&socket, opened).await {
            Ok(()) => SightingKind::Done,
            Err(End::Client(text)) => SightingKind::ClientError(text),
            Err(End::Silent) => SightingKind::TimedOut,
            Err(End::Io(error)) => {
                let _ = socket.send(&packet::error(ErrorCode::Other, "read error")).await;
                SightingKind::Failed(error.to_string())
            }
        }
    }

    /// Connected: the kernel drops what others send to this port, and tells
    /// us when the client's port is closed.
    async fn socket(&self) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((self.settings.listen.ip(), 0)).await?;
        socket.connect(self.peer).await?;
        Ok(socket)
    }

    async fn send(&self, socket: &UdpSocket, opened: Opened) -> Result<(), End> {
        let terms = Terms::agree(self.request, opened.size, self.settings);
        let mut blocks = Blocks::new(opened, terms.block, self.request.mode);
        if let Some(oack) = &terms.oack {
            self.agree(socket, oack, terms.timeout).await?;
        }
        let mut window = Window::new(terms.window);
        let mut under_way: VecDeque<Vec<u8>> = VecDeque::new();
        let (mut resend, mut tries) = (false, 0);
        let mut until = Instant::now() + terms.timeout;
        loop {
            if resend {
                for packet in &under_way {
                    socket.send(packet).await?;
                }
                resend = false;
            }
            while window.has_room() {
                let Some(packet) = blocks.next(window.number(window.under_way() + 1)).await? else {
                    break;
                };
                window.push();
                socket.send(&packet).await?;
                under_way.push_back(packet);
            }
            if under_way.is_empty() {
                return Ok(());
            }
            match self.hear(socket, until).await? {
                None => {
                    tries += 1;
                    if tries > self.settings.retries {
                        return Err(End::Silent);
                    }
                    resend = true;
                }
                Some(block) => match window.heard(block) {
                    Heard::Advanced(n) => {
                        let confirmed = under_way.drain(..usize::from(n).min(under_way.len()));
                        let bytes: usize = confirmed.map(|p| p.len().saturating_sub(4)).sum();
                        self.progress(bytes);
                        tries = 0;
                        resend = true; // what is left was lost (RFC 7440 §4)
                    }
                    Heard::Repeat => resend = true,
                    // The clock runs on: a client that lost a block repeats
                    // its last ACK for as long as we say nothing.
                    Heard::Stale => continue,
                },
            }
            until = Instant::now() + backoff(terms.timeout, tries);
        }
    }

    /// Sends the OACK until block 0 is acknowledged (RFC 2347 §2).
    async fn agree(&self, socket: &UdpSocket, oack: &[u8], first: Duration) -> Result<(), End> {
        for tries in 0..=self.settings.retries {
            socket.send(oack).await?;
            let end = Instant::now() + backoff(first, tries);
            while let Some(block) = self.hear(socket, end).await? {
                if block == 0 {
                    self.progress(0);
                    return Ok(());
                }
            }
        }
        Err(End::Silent)
    }

    /// The next ACK before `end`; everything else that comes is passed over.
    async fn hear(&self, socket: &UdpSocket, end: Instant) -> Result<Option<u16>, End> {
        let mut buffer = [0; MAX_REQUEST];
        loop {
            let Ok(received) = timeout_at(end, socket.recv(&mut buffer)).await else {
                return Ok(None);
            };
            let len = received?;
            match Packet::decode(buffer.get(..len).unwrap_or_default()) {
                Some(Packet::Ack(block)) => return Ok(Some(block)),
                // EDK2 asks for each file twice and ends the first time so,
                // having learnt the size. Going on would hold a slot for
                // nothing.
                Some(Packet::Error(code, text)) => {
                    return Err(End::Client(format!("{code} {text}")));
                }
                _ => {}
            }
        }
    }

    fn progress(&self, bytes: usize) {
        self.activity.alive.store(true, Ordering::Relaxed);
        self.activity.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let now = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.activity.last.store(now, Ordering::Relaxed);
    }
}

fn backoff(first: Duration, tries: u32) -> Duration {
    first.saturating_mul(1 << tries.min(8)).min(LONGEST_WAIT.max(first))
}

/// The file, block by block.
struct Blocks {
    reader: BufReader<Box<dyn AsyncRead + Send + Unpin>>,
    block: usize,
    ended: bool,
    /// In netascii, what is translated and not yet sent.
    translated: Option<VecDeque<u8>>,
}

impl Blocks {
    fn new(opened: Opened, block: u16, mode: Mode) -> Self {
        let translated = (mode == Mode::Netascii).then(VecDeque::new);
        let reader = BufReader::with_capacity(READ_AHEAD, opened.reader);
        Self { reader, block: block.into(), ended: false, translated }
    }

    /// The next DATA packet; after one that is short of a full block, none.
    async fn next(&mut self, number: u16) -> io::Result<Option<Vec<u8>>> {
        if self.ended {
            return Ok(None);
        }
        let mut packet = Vec::with_capacity(4 + self.block);
        packet.extend_from_slice(&packet::data_head(number));
        match &mut self.translated {
            None => {
                let mut rest = (&mut self.reader).take(self.block as u64);
                while rest.read_buf(&mut packet).await? > 0 {}
            }
            Some(translated) => {
                let mut piece = [0; 4096];
                while translated.len() < self.block {
                    let n = self.reader.read(&mut piece).await?;
                    if n == 0 {
                        break;
                    }
                    for &byte in piece.get(..n).unwrap_or_default() {
                        match byte {
                            b'\n' => translated.extend(b"\r\n"),
                            b'\r' => translated.extend(b"\r\0"), // RFC 764
                            other => translated.push_back(other),
                        }
                    }
                }
                packet.extend(translated.drain(..self.block.min(translated.len())));
            }
        }
        self.ended = packet.len() < 4 + self.block;
        Ok(Some(packet))
    }
}
