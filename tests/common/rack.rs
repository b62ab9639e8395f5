//! A virtual rack with a build server, driven through the command line as an
//! operator would.

use provision::lab::server::ServerPlan;
use provision::lab::{Lab, LabFirmware, down};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

/// One at a time: a rack takes both cores.
pub struct Rack {
    pub lab: Lab,
    pub dir: tempfile::TempDir,
    server: Option<Child>,
    deployment: Option<Child>,
}

/// Deadlines short enough to be waited for, where one has to pass; the machines
/// are emulated, so the long phases keep some room.
pub const SHORT: &str = "[dhcp]\nallow_other_servers = true\n\n[deadlines]\nattempts = 2\n\
    power = 20\ndhcp = 30\nloader = 40\nkernel = 40\ninstaller = 90\ndisk = 40\nimage = 60\n\
    profile = 90\nbootloader = 90\nfirst_boot = 240\nverify = 200\n";

/// Three times as long, where none is to pass: the host's cores may be slow, or
/// shared.
pub const PATIENT: &str = "[dhcp]\nallow_other_servers = true\n\n[deadlines]\nattempts = 2\n\
    power = 60\ndhcp = 90\nloader = 120\nkernel = 120\ninstaller = 270\ndisk = 120\n\
    image = 180\nprofile = 270\nbootloader = 270\nfirst_boot = 720\nverify = 600\n";

/// Where `make image` keeps images.
pub fn image_cache() -> PathBuf {
    let home = std::env::var_os("HOME").map_or_else(|| "/root".into(), PathBuf::from);
    home.join(".cache/provision/images")
}

impl Rack {
    /// Raises a rack called `name`; `store` as in the configuration.
    pub fn up(name: &str, nodes: &[LabFirmware], store: Option<&str>) -> Self {
        Self::raise(name, nodes, (false, false), |rack| {
            rack.configure(&image_cache(), store, PATIENT);
        })
    }

    /// The same with deadlines that can be waited for.
    pub fn hasty(name: &str, nodes: &[LabFirmware]) -> Self {
        Self::raise(name, nodes, (false, false), |rack| {
            rack.configure(&image_cache(), None, SHORT);
        })
    }

    /// One with a second host, on which a deployment server runs.
    pub fn with_deployment(name: &str, nodes: &[LabFirmware]) -> Self {
        Self::raise(name, nodes, (true, false), |rack| {
            rack.configure(&image_cache(), None, PATIENT);
        })
    }

    /// One with a way out to the archives, and images of its own.
    pub fn with_uplink(name: &str, nodes: &[LabFirmware], images: &Path, extra: &str) -> Self {
        Self::raise(name, nodes, (false, true), |rack| rack.configure(images, None, extra))
    }

    fn raise(
        name: &str,
        nodes: &[LabFirmware],
        (deployment, uplink): (bool, bool),
        configure: impl FnOnce(&Self),
    ) -> Self {
        // SAFETY: the tests of this binary run one at a time, and nothing
        // else reads the environment meanwhile.
        unsafe {
            std::env::set_var("PROVISION_EXE", env!("CARGO_BIN_EXE_provision"));
        }
        let lab = Lab {
            name: name.into(),
            dir: Lab::dir_of(name),
            nodes: nodes.to_vec(),
            memory: 2048,
            disk: 8,
            uplink,
            deployment,
            rootless: false,
        };
        let dir = tempfile::tempdir().unwrap();
        copy(Path::new("profiles"), &dir.path().join("profiles"));
        lab.up().unwrap();
        let mut rack = Self { lab, dir, server: None, deployment: None };
        configure(&rack);
        if deployment {
            let exe = Path::new(env!("CARGO_BIN_EXE_deployment-server"));
            rack.deployment = Some(rack.lab.start_deployment(exe).unwrap());
        }
        rack.start_server();
        let file = rack.lab.dir.join("nodes.toml");
        rack.ok(&["nodes", "import", file.to_str().unwrap()]);
        rack
    }

    /// Writes the server's configuration; it counts from the next start.
    pub fn configure(&self, images: &Path, store: Option<&str>, extra: &str) {
        let agent = std::env::var("PROVISION_AGENT").expect("PROVISION_AGENT: run by make test");
        let plan = ServerPlan {
            images: images.into(),
            profiles: self.dir.path().join("profiles"),
            store: store.map(Into::into),
            extra: extra.to_owned(),
            install: format!("agent = \"{agent}\""),
        };
        self.lab.write_config(&plan).unwrap();
    }

    /// Adds a profile made of `base` with one script or another check.
    pub fn add_profile(&self, name: &str, script: &str, verify: &str) {
        let dir = self.dir.path().join("profiles").join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let toml =
            format!("name = \"{name}\"\ndescription = \"for a test\"\nservices = [\"10-it.sh\"]\n");
        std::fs::write(dir.join("profile.toml"), toml).unwrap();
        std::fs::write(dir.join("10-it.sh"), script).unwrap();
        std::fs::write(dir.join("verify.sh"), verify).unwrap();
    }

    pub fn start_server(&mut self) {
        let exe = Path::new(env!("CARGO_BIN_EXE_build-server"));
        self.server = Some(self.lab.start_server(exe).unwrap());
    }

    /// On a host that lacks `file`. Whoever enters the lab has mounts of its
    /// own, so that it is gone for this server alone.
    pub fn start_server_without(&mut self, file: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let exe = self.dir.path().join("build-server");
        let server = env!("CARGO_BIN_EXE_build-server");
        let text = format!("#!/bin/sh\nmount --bind /dev/null {file} && exec {server} \"$@\"\n");
        std::fs::write(&exe, text).unwrap();
        std::fs::set_permissions(&exe, std::fs::Permissions::from_mode(0o755)).unwrap();
        self.server = Some(self.lab.start_server(&exe).unwrap());
    }

    /// kill -9, as a power cut on the build host would.
    pub fn kill_server(&mut self) {
        if let Some(mut s) = self.server.take() {
            s.kill().unwrap();
            s.wait().unwrap();
        }
    }

    pub fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_provision"))
            .args(["--server", &self.lab.server_url()])
            .args(args)
            .output()
            .unwrap()
    }

    pub fn ok(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    pub fn json(&self, args: &[&str]) -> Value {
        let mut all = vec!["--output", "json"];
        all.extend(args);
        serde_json::from_str(&self.ok(&all)).unwrap()
    }

    /// Starts an install and gives its build's id.
    pub fn install(&self, node: &str, profile: &str) -> String {
        let v = self.json(&["install", node, "--profile", profile, "--no-wait"]);
        v[0]["build"].as_str().unwrap().to_owned()
    }

    pub fn build(&self, id: &str) -> Value {
        self.json(&["builds", "--build", id])
    }

    /// Waits until the build's phase is `phase` or later; fails when it ends
    /// before.
    pub fn wait_phase(&self, id: &str, phase: &str) {
        self.wait_phase_in(id, phase, 300);
    }

    pub fn wait_phase_in(&self, id: &str, phase: &str, seconds: u64) {
        let order = provision::model::Phase::ALL.map(|p| p.as_str());
        let at = |p: &str| order.iter().position(|x| *x == p).unwrap();
        self.wait(id, seconds, |b| at(b["phase"].as_str().unwrap()) >= at(phase));
    }

    /// Waits for the build's end and gives it.
    pub fn wait_end(&self, id: &str, seconds: u64) -> Value {
        self.wait(id, seconds, |b| b["outcome"] != "running")
    }

    fn wait(&self, id: &str, seconds: u64, done: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + Duration::from_secs(seconds);
        loop {
            let b = self.build(id);
            if done(&b) {
                return b;
            }
            if b["outcome"] != "running" || Instant::now() > end {
                panic!("{}", self.story(id));
            }
            // Not synchronisation: the pace of asking.
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// All that is known of a build, for a failed test.
    pub fn story(&self, id: &str) -> String {
        let b = self.build(id);
        let node = b["node"].as_str().unwrap_or("node01").to_owned();
        let explain = self.run(&["explain", &node, "--log"]);
        let console = std::fs::read(self.lab.dir.join(&node).join("console.log"));
        let console = String::from_utf8_lossy(&console.unwrap_or_default()).into_owned();
        let tail: Vec<&str> = console.lines().rev().take(25).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        format!("{}\nconsole:\n{}", String::from_utf8_lossy(&explain.stdout), tail.join("\n"))
    }

    pub fn must_deploy(&self, id: &str) -> Value {
        let b = self.wait_end(id, 420);
        assert_eq!(b["outcome"], "deployed", "{}", self.story(id));
        let took: Vec<String> = b["phases"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| format!("{} {:.1}", p["phase"].as_str().unwrap(), seconds(p)))
            .collect();
        eprintln!("{} deployed: {}", b["node"].as_str().unwrap(), took.join(" · "));
        b
    }

    /// A number of the build server, from `/metrics`.
    pub fn metric(&self, name: &str) -> u64 {
        let mut c = Command::new("curl");
        c.args(["--silent", "--fail", "--unix-socket"]).arg(self.lab.dir.join("api.sock"));
        let out = c.arg("http://x/metrics").output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix(&format!("provision_{name} ")));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    /// What the machine booted from, start by start.
    pub fn boots(&self, index: usize) -> Vec<String> {
        let text = std::fs::read_to_string(self.lab.node_dir(index).join("boots.log"));
        let text = text.unwrap_or_default();
        text.lines().filter_map(|l| l.split_whitespace().nth(1)).map(Into::into).collect()
    }

    pub fn fault(&self, index: usize, what: &str) {
        self.lab.tell(index, &format!("fault {what}")).unwrap();
    }

    /// A command on a node over ssh; it must end well.
    pub fn ssh(&self, node: &str, command: &str) -> String {
        let out = self.ssh_output(node, command);
        assert!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// A command on a node over ssh, checked against the reported host keys.
    pub fn ssh_output(&self, node: &str, command: &str) -> Output {
        let n = self.json(&["nodes", "show", node]);
        let address = n["address"].as_str().unwrap();
        let known: String = n["status"]["host_keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|k| format!("{address} {}\n", k.as_str().unwrap()))
            .collect();
        let file = self.dir.path().join("known_hosts");
        std::fs::write(&file, known).unwrap();
        self.lab
            .command("ssh")
            .args(["-F", "none", "-i"])
            .arg(self.lab.ssh_key())
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", file.display()))
            .args(["-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes"])
            .args(["-o", "ConnectTimeout=30", &format!("ops@{address}"), command])
            .output()
            .unwrap()
    }
}

/// Waits until something outside is so; fails after `seconds`.
pub fn until(what: &str, seconds: u64, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !is_so() {
        assert!(Instant::now() < end, "waited {seconds} s until {what}");
        // Not synchronisation: the pace of asking.
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Seconds a phase took.
pub fn seconds(phase: &Value) -> f64 {
    let t = |k: &str| phase[k].as_str().and_then(|s| s.parse::<provision::model::Time>().ok());
    match (t("started"), t("ended")) {
        (Some(a), Some(b)) => b.duration_since(a).as_secs_f64(),
        _ => 0.0,
    }
}

impl Drop for Rack {
    fn drop(&mut self) {
        self.kill_server();
        if let Some(mut d) = self.deployment.take() {
            d.kill().unwrap();
            d.wait().unwrap();
        }
        if std::env::var_os("PROVISION_KEEP_LAB").is_none() {
            let _ = down(&self.lab.name);
        }
    }
}

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    let status = Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}
