//! A TCP relay that can lose one answer: the request goes through, its answer
//! comes back as far as here, and the connection is cut.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

/// What to lose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lose {
    /// The request itself.
    Request,
    /// The answer to it.
    Answer,
}

/// What to lose, and the other ends of the test's two channels.
type Armed = (Lose, Sender<()>, Receiver<()>);

/// Runs until the process ends; each connection has its two threads.
pub struct Relay {
    pub address: SocketAddr,
    armed: Arc<Mutex<Option<Armed>>>,
}

impl Relay {
    /// A relay to `to`; requests that hold `word` can be lost.
    pub fn start(to: SocketAddr, word: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let armed: Arc<Mutex<Option<Armed>>> = Arc::default();
        let shared = armed.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(to) else { continue };
                let losing: Arc<Mutex<Option<Armed>>> = Arc::default();
                let (a, b) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (shared, mine) = (shared.clone(), losing.clone());
                std::thread::spawn(move || requests(a, b, word, &shared, &mine));
                std::thread::spawn(move || answers(server, client, &losing));
            }
        });
        Self { address, armed }
    }

    /// Loses the next request with the word in it, or its answer. The first
    /// channel tells when that is at hand, the second says when to cut.
    pub fn lose_next(&self, what: Lose) -> (Receiver<()>, Sender<()>) {
        let ((at_hand, told), (cut, wait)) = (channel(), channel());
        *self.armed.lock().unwrap() = Some((what, at_hand, wait));
        (told, cut)
    }
}

fn cut(a: &TcpStream, b: &TcpStream, (_, at_hand, wait): Armed) {
    let _ = at_hand.send(());
    let _ = wait.recv();
    let _ = (a.shutdown(Shutdown::Both), b.shutdown(Shutdown::Both));
}

fn requests(
    mut from: TcpStream,
    mut to: TcpStream,
    word: &[u8],
    armed: &Mutex<Option<Armed>>,
    losing: &Mutex<Option<Armed>>,
) {
    let mut buf = [0u8; 65536];
    loop {
        let n = match from.read(&mut buf) {
            Ok(n) if n > 0 => n,
            _ => break,
        };
        if buf[..n].windows(word.len()).any(|w| w == word)
            && let Some(a) = armed.lock().unwrap().take()
        {
            match a.0 {
                Lose::Request => return cut(&from, &to, a),
                Lose::Answer => *losing.lock().unwrap() = Some(a),
            }
        }
        if to.write_all(&buf[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

fn answers(mut from: TcpStream, mut to: TcpStream, losing: &Mutex<Option<Armed>>) {
    let mut buf = [0u8; 65536];
    loop {
        let n = match from.read(&mut buf) {
            Ok(n) if n > 0 => n,
            _ => break,
        };
        if let Some(a) = losing.lock().unwrap().take() {
            return cut(&from, &to, a);
        }
        if to.write_all(&buf[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
