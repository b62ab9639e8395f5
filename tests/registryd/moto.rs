//! An S3 server on loopback, one for the test's process: moto, or what
//! PROVISION_S3 names. It dies with the process.

#![allow(dead_code, reason = "each test binary uses some of these")]

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The bucket that is there.
pub const BUCKET: &str = "registry";

/// `http://HOST:PORT` of an S3 server with the bucket.
pub fn endpoint() -> &'static str {
    static AT: OnceLock<String> = OnceLock::new();
    AT.get_or_init(|| {
        let at = std::env::var("PROVISION_S3").unwrap_or_else(|_| started());
        make_bucket(&at, BUCKET);
        at
    })
}

/// Its program: `scripts/deps.sh` installs one.
fn program() -> PathBuf {
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
    let ours = home.join(".cache/provision/moto/bin/moto_server");
    if ours.exists() { ours } else { "moto_server".into() }
}

#[allow(clippy::zombie_processes, reason = "it lives as long as this process, and dies with it")]
fn started() -> String {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // It gets its signal when the thread ends that started it, so that one
    // waits as long as the process lives.
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program())
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let _ = tell.send(child);
        loop {
            std::thread::park();
        }
    });
    let mut child = told.recv().unwrap().expect("setpriv, of util-linux");
    let until = Instant::now() + Duration::from_secs(90);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "moto_server ended ({ended:?}): scripts/deps.sh installs it");
        assert!(Instant::now() < until, "moto_server does not listen");
        std::thread::sleep(Duration::from_millis(50));
    }
    format!("http://127.0.0.1:{port}")
}

/// Makes a bucket, unless it is there.
pub fn make_bucket(endpoint: &str, name: &str) {
    let done = Command::new("curl")
        .args(["-sS", "--fail-with-body", "--retry", "5", "--retry-all-errors", "-X", "PUT"])
        .arg(format!("{endpoint}/{name}"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success() || said.contains("BucketAlready"), "{said}");
}
