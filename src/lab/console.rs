//! A machine's serial line, shared: the BMC simulator passes it on as serial
//! over LAN while somebody looks at it with `provision lab console`. Whoever
//! is slow misses something; the machine never waits.

use super::{LabError, io_at};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

/// Pieces that may wait for one listener.
const QUEUE: usize = 1024;
/// For QEMU to open its end.
const START: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Ends {
    machine: Option<UnixStream>,
    listeners: Vec<SyncSender<Vec<u8>>>,
}

/// The line.
#[derive(Clone, Default)]
pub struct Line(Arc<Mutex<Ends>>);

impl Line {
    /// Takes listeners at `socket` (people) and at `bmc` (the simulator).
    pub fn serve(socket: &Path, bmc: SocketAddr) -> Result<Self, LabError> {
        let line = Self::default();
        let _ = fs::remove_file(socket);
        let people = UnixListener::bind(socket).map_err(io_at(socket))?;
        let at = bmc.to_string();
        let sim = TcpListener::bind(bmc).map_err(io_at(Path::new(&at)))?;
        let own = line.clone();
        spawn(move || {
            for s in people.incoming().flatten() {
                if let Ok(reader) = s.try_clone() {
                    own.join(reader, s);
                }
            }
        });
        let own = line.clone();
        spawn(move || {
            for s in sim.incoming().flatten() {
                if let Ok(reader) = s.try_clone() {
                    own.join(reader, s);
                }
            }
        });
        Ok(line)
    }

    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self, reader: impl Read + Send + 'static, writer: impl Write + Send + 'static) {
        let (to, from) = sync_channel(QUEUE);
        self.ends().listeners.push(to);
        spawn(move || hand_on(&from, writer));
        let own = self.clone();
        spawn(move || own.type_in(reader));
    }

    /// What a listener types goes to the machine, when there is one.
    fn type_in(&self, mut from: impl Read) {
        let mut buffer = [0; 256];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            let to = self.ends().machine.as_ref().and_then(|m| m.try_clone().ok());
            if let (Some(mut to), Some(typed)) = (to, buffer.get(..n)) {
                let _ = to.write_all(typed);
            }
        }
    }

    /// A machine was started: its end of the line is at `socket`.
    pub fn plug(&self, socket: &Path) {
        let (own, socket) = (self.clone(), socket.to_owned());
        spawn(move || {
            let end = Instant::now() + START;
            let mut machine = loop {
                match UnixStream::connect(&socket) {
                    Ok(s) => break s,
                    Err(_) if Instant::now() > end => return,
                    Err(_) => sleep(Duration::from_millis(20)),
                }
            };
            own.ends().machine = machine.try_clone().ok();
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = machine.read(&mut buffer) {
                let Some(said) = buffer.get(..n) else { break };
                let gone = |e: &TrySendError<_>| matches!(e, TrySendError::Disconnected(_));
                own.ends()
                    .listeners
                    .retain(|l| !l.try_send(said.to_vec()).is_err_and(|e| gone(&e)));
            }
        });
    }
}

fn hand_on(from: &Receiver<Vec<u8>>, mut to: impl Write) {
    while let Ok(said) = from.recv() {
        if to.write_all(&said).is_err() {
            return;
        }
    }
}
