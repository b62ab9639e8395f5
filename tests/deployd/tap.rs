//! A TCP relay with a tap: so many bytes of answers pass, then it holds until
//! it is opened further. Connections can be cut.

#![allow(dead_code, reason = "each test binary uses some of these")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

#[derive(Default)]
struct State {
    /// Bytes of answers that may still pass.
    left: u64,
    passed: u64,
    closed: bool,
    open: Vec<TcpStream>,
}

/// Runs until the process ends.
pub struct Tap {
    pub address: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Tap {
    pub fn start(to: SocketAddr, left: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new((Mutex::new(State { left, ..State::default() }), Condvar::new()));
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(to) else { continue };
                let mut s = shared.0.lock().unwrap();
                if s.closed {
                    continue;
                }
                s.open.extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
                let (a, b) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let shared = shared.clone();
                std::thread::spawn(move || pass(a, b, None));
                std::thread::spawn(move || pass(server, client, Some(&shared)));
            }
        });
        Self { address, state }
    }

    /// Cuts all connections, and takes no new ones.
    pub fn close(&self) {
        self.state.0.lock().unwrap().closed = true;
        self.cut();
    }

    /// Takes connections again.
    pub fn reopen(&self) {
        self.state.0.lock().unwrap().closed = false;
    }

    /// Lets so many more bytes pass.
    pub fn let_pass(&self, bytes: u64) {
        let mut s = self.state.0.lock().unwrap();
        s.left = s.left.saturating_add(bytes);
        self.state.1.notify_all();
    }

    /// Bytes of answers that passed.
    pub fn passed(&self) -> u64 {
        self.state.0.lock().unwrap().passed
    }

    /// Cuts all connections, also those that hold.
    pub fn cut(&self) {
        let mut s = self.state.0.lock().unwrap();
        for c in s.open.drain(..) {
            let _ = c.shutdown(Shutdown::Both);
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, tap: Option<&(Mutex<State>, Condvar)>) {
    let mut buf = [0u8; 65536];
    loop {
        let n = match from.read(&mut buf) {
            Ok(n) if n > 0 => n,
            _ => break,
        };
        if let Some((state, more)) = tap {
            let mut s = state.lock().unwrap();
            while s.left < n as u64 {
                s = more.wait(s).unwrap();
            }
            s.left -= n as u64;
            s.passed += n as u64;
        }
        if to.write_all(&buf[..n]).is_err() {
            break;
        }
    }
    let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
}
