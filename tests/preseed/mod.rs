//! Three kinds of node, for the tests of what their installers are told.
#![allow(dead_code)] // Each test program uses a part.

use provision::model::Secret;
use provision::model::plan::ScriptPlan;
use provision::preseed::{Disk, Mirror, Preseeds, ProfileScripts, Security, Values};
use std::io::Write;
use std::process::{Command, Output, Stdio};

pub fn shipped() -> Preseeds {
    Preseeds::new("/nonexistent".into())
}

/// Nothing but what every node has; BIOS, any one disk.
pub fn minimal() -> Values {
    Values {
        node: "node03".parse().unwrap(),
        domain: String::new(),
        address: [10, 1, 0, 13].into(),
        prefix: 24,
        gateway: None,
        dns: vec![],
        ntp: vec![],
        mac: "52:54:00:00:00:03".parse().unwrap(),
        uefi: false,
        disk: Disk::default(),
        mirror: Mirror {
            protocol: "http".into(),
            host: "10.1.0.1:8080".into(),
            directory: "/debian".into(),
            suite: "stable".into(),
            udeb_suite: None,
            security: None,
        },
        user: "ops".into(),
        password_hash: None,
        ssh_keys: vec![],
        timezone: "Etc/UTC".into(),
        locale: "en_US.UTF-8".into(),
        keyboard: "us".into(),
        packages: vec![],
        kernel_args: String::new(),
        build: "b-01arz3ndektsv4rrffq69g5fav".parse().unwrap(),
        server: "http://10.1.0.1:8080".into(),
        token: Secret::new("one-time-token"),
        profile: ProfileScripts { name: "base".into(), scripts: vec![], groups: vec![] },
        labels: Default::default(),
        agent_config: "{\n  \"server\": \"http://10.1.0.1:8080\"\n}".into(),
        agent_unit: "[Unit]\nDescription=The agent\n".into(),
        now: 1_800_000_000,
        poweroff: false,
    }
}

/// BIOS; the disk by its serial number.
pub fn bios() -> Values {
    Values {
        node: "node01".parse().unwrap(),
        domain: "rack.example".into(),
        address: [10, 1, 0, 11].into(),
        gateway: Some([10, 1, 0, 254].into()),
        dns: vec![[10, 1, 0, 1].into()],
        ntp: vec![[10, 1, 0, 1].into()],
        mac: "52:54:00:00:00:01".parse().unwrap(),
        disk: Disk { serial: "S3Z8 NB0K".into(), ..Disk::default() },
        ssh_keys: vec!["ssh-ed25519 AAAAC3Nz ops@o'brien".into()],
        kernel_args: "console=ttyS0,115200n8".into(),
        labels: [("rack".to_owned(), "it's \"r1\"".to_owned())].into(),
        ..minimal()
    }
}

/// UEFI, two disks, one named by its WWN; everything else said too.
pub fn uefi() -> Values {
    let docker = ScriptPlan {
        name: "10-docker.sh".into(),
        text: "#!/bin/sh\nset -e\nprintf '%s\\n' \"it's on\" > /etc/motd\n".into(),
    };
    Values {
        node: "node02".parse().unwrap(),
        mac: "52:54:00:00:00:02".parse().unwrap(),
        uefi: true,
        disk: Disk {
            wwn: "naa.5000c500a1b2c3d4".into(),
            min_bytes: 100_000_000_000,
            max_bytes: 2_000_000_000_000,
            ..Disk::default()
        },
        mirror: Mirror {
            udeb_suite: Some("stable-own".into()),
            security: Some(Security {
                host: "10.1.0.1:8080".into(),
                directory: "/debian-security".into(),
            }),
            ..minimal().mirror
        },
        password_hash: Some(format!("$6$rounds=5000$saltsalt${}", "h".repeat(86))),
        packages: vec!["curl".into(), "g++".into()],
        profile: ProfileScripts {
            name: "docker".into(),
            scripts: vec![docker],
            groups: vec!["docker".into()],
        },
        poweroff: true,
        ..bios()
    }
}

pub fn kinds() -> [(&'static str, Values); 3] {
    [("bios-serial", bios()), ("uefi-wwn", uefi()), ("minimal", minimal())]
}

pub fn feed(program: &str, args: &[&str], input: &str) -> Option<Output> {
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.ok()?;
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    Some(child.wait_with_output().unwrap())
}
