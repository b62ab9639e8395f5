//! What `make demo` shows, from its output: a node installed, an image built
//! from a folder, running there with its digest in the record, and its origin
//! proved.

use provision::lab;
use std::process::Command;

/// Ends the rack, however the test ends.
struct Down(&'static str);

impl Drop for Down {
    fn drop(&mut self) {
        if let Err(e) = lab::down(self.0) {
            eprintln!("{e}");
        }
    }
}

/// M38 M39 M44.
#[test]
fn the_demo_ends_with_software_that_runs_and_its_origin() {
    let _down = Down("e2edemo");
    let out = Command::new(env!("CARGO_BIN_EXE_provision"))
        .args(["lab", "demo", "--name", "e2edemo"])
        .env_remove("PROVISION_SERVER")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let all = format!("{said}{}", String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{all}");
    // The build server's cache reaches the archives outside.
    let rack = lab::Lab::open("e2edemo").unwrap();
    let url = "http://10.77.0.1:8080/apt/debian/dists/bookworm/InRelease";
    let got = rack.command("curl").args(["-sSf", "--noproxy", "*", url]).output().unwrap();
    let got = String::from_utf8_lossy(&got.stdout).into_owned();
    assert!(got.starts_with("-----BEGIN PGP SIGNED MESSAGE"), "{got:.100}");
    for line in [
        "demo: node01 deployed in ",
        "hello from Debian GNU/Linux 12",
        "packages, on node01",
        "runs  10.77.0.2:5000/staging/hello:1, sha256:",
        "demo: staging/hello:1 built in ",
    ] {
        assert!(said.contains(line), "{line:?} is not in:\n{all}");
    }
}
