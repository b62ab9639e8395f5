//! Network namespaces for tests: real clients against the real server, with
//! no packet outside. Everything made is removed on drop, also when a test
//! fails. Needs root and iproute2.
#![allow(dead_code, missing_docs, reason = "each test file uses its own part")]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Runs a command to its end; panics with its output when it fails.
pub fn run(program: &str, args: &[&str]) -> String {
    let out =
        Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        out.status.success(),
        "{program} {args:?}: {}\n{text}{}",
        out.status,
        String::from_utf8_lossy(&out.stderr)
    );
    text
}

/// A namespace with its loopback up.
pub struct Namespace {
    pub name: String,
}

impl Namespace {
    pub fn new(role: &str) -> Self {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("pv{}-{n}-{role}", std::process::id());
        run("ip", &["netns", "add", &name]);
        let it = Self { name };
        it.ip(&["link", "set", "lo", "up"]);
        it
    }

    pub fn ip(&self, args: &[&str]) -> String {
        run("ip", &[&["-n", self.name.as_str()], args].concat())
    }

    /// A command to be run inside.
    pub fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]).args(args).stdin(Stdio::null());
        command
    }

    /// Runs `work` on a new thread inside the namespace, on a tokio runtime
    /// of its own; sockets opened there belong to it.
    pub fn spawn<F>(&self, work: F) -> std::thread::JoinHandle<()>
    where
        F: FnOnce(tokio::runtime::Runtime) + Send + 'static,
    {
        let path = format!("/run/netns/{}", self.name);
        std::thread::spawn(move || {
            let file = std::fs::File::open(path).expect("namespace");
            rustix::thread::move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&file),
                Some(rustix::thread::LinkNameSpaceType::Network),
            )
            .expect("setns (root is needed)");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            work(runtime.expect("runtime"));
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Whatever a failed test left running inside goes with it; `ip netns
        // pids` lists nothing but what was started there.
        if let Ok(out) = Command::new("ip").args(["netns", "pids", &self.name]).output() {
            for pid in String::from_utf8_lossy(&out.stdout).split_whitespace() {
                // The server runs on a thread of this very process.
                if pid != std::process::id().to_string() {
                    let _ = Command::new("kill").args(["-9", pid]).status();
                }
            }
        }
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Two namespaces and a cable: `boot0` with `server_address` in the first,
/// `eth0` with `client_mac` in the second.
pub struct Cable {
    pub server: Namespace,
    pub client: Namespace,
}

impl Cable {
    pub fn new(server_address: &str, client_mac: &str) -> Self {
        let server = Namespace::new("s");
        let client = Namespace::new("c");
        server.ip(&[
            "link",
            "add",
            "boot0",
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            &client.name,
        ]);
        server.ip(&["addr", "add", server_address, "dev", "boot0"]);
        server.ip(&["link", "set", "boot0", "up"]);
        client.ip(&["link", "set", "eth0", "address", client_mac]);
        client.ip(&["link", "set", "eth0", "up"]);
        Self { server, client }
    }
}

/// A namespace with `tap0`, on which a virtual machine will be, behind the
/// bridge `boot0`.
pub fn tap(server_address: &str) -> Namespace {
    let it = Namespace::new("t");
    it.ip(&["link", "add", "boot0", "type", "bridge"]);
    it.ip(&["tuntap", "add", "dev", "tap0", "mode", "tap"]);
    it.ip(&["link", "set", "tap0", "master", "boot0"]);
    it.ip(&["addr", "add", server_address, "dev", "boot0"]);
    for link in ["tap0", "boot0"] {
        it.ip(&["link", "set", link, "up"]);
    }
    it
}

/// Another machine on that bridge, with `eth0`.
pub fn neighbour(bridge: &Namespace, address: &str) -> Namespace {
    let it = Namespace::new("n");
    bridge.ip(&["link", "add", "port1", "type", "veth", "peer", "name", "eth0", "netns", &it.name]);
    bridge.ip(&["link", "set", "port1", "master", "boot0"]);
    bridge.ip(&["link", "set", "port1", "up"]);
    it.ip(&["addr", "add", address, "dev", "eth0"]);
    it.ip(&["link", "set", "eth0", "up"]);
    it
}

/// A program that runs while the test goes on; its output lines can be
/// waited for. Ended on drop.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    pub seen: Vec<String>,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawn");
        let (tx, lines) = channel();
        let outputs: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|o| Box::new(o) as Box<dyn Read + Send>),
            child.stderr.take().map(|o| Box::new(o) as Box<dyn Read + Send>),
        ];
        for output in outputs.into_iter().flatten() {
            let tx = tx.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if tx.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        Self { child, lines, seen: Vec::new() }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line that contains `needle`.
    pub fn wait_for(&mut self, needle: &str, within: Duration) -> String {
        let end = Instant::now() + within;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no {needle:?} within {within:?}; it said:\n{}", self.seen.join("\n"));
            };
            self.seen.push(line.clone());
            if line.contains(needle) {
                return line;
            }
        }
    }

    /// All output until the program ends.
    pub fn finish(mut self, within: Duration) -> (Option<i32>, String) {
        let end = Instant::now() + within;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen.push(line),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(_) => panic!("still runs after {within:?}:\n{}", self.seen.join("\n")),
            }
        }
        let status = self.child.wait().expect("wait");
        (status.code(), self.seen.join("\n"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
