//! Debian's own installer on real firmware, nobody typing: half an hour a
//! machine, so not part of `make test` but of `make test-installers`.
//! M13 M14 M15 M16 M19 M21 M41.

mod common;

use common::rack::{Rack, image_cache};
use provision::lab::LabFirmware::{Bios, Uefi};

/// Emulated, the steps take long; what counts is that the log goes on.
const LONG: &str = "[dhcp]\nallow_other_servers = true\n\n[deadlines]\nattempts = 2\n\
    installer = 400\ndisk = 300\nimage = 400\nprofile = 1800\nfirst_boot = 600\nverify = 400\n";

const IMAGE: &str = "debian-13-installer";

fn install(rack: &Rack, node: &str, profile: &str) -> String {
    let v = rack.json(&["install", node, "--profile", profile, "--image", IMAGE, "--no-wait"]);
    v[0]["build"].as_str().unwrap().to_owned()
}

fn deployed(rack: &Rack, id: &str) {
    let b = rack.wait_end(id, 5400);
    assert_eq!(b["outcome"], "deployed", "{}", rack.story(id));
    for p in b["phases"].as_array().unwrap() {
        eprintln!(
            "{} {:<10} {:7.1} s",
            b["node"],
            p["phase"].as_str().unwrap(),
            common::rack::seconds(p)
        );
    }
}

/// The image as `make image` keeps images: made once.
fn have_image(rack: &Rack) {
    let known = rack.json(&["images"]);
    let there = known["items"].as_array().unwrap().iter().any(|i| i["name"] == IMAGE);
    if !there {
        eprintln!("{}", rack.ok(&["images", "add", "debian-13"]));
    }
}

fn is_right(rack: &Rack, node: &str, firmware: &str) {
    let check = "sudo -n true && docker version --format '{{.Server.Version}}' && \
                 . /etc/os-release && echo $VERSION_ID && \
                 ([ -d /sys/firmware/efi ] && echo uefi || echo bios)";
    let said = rack.ssh(node, check);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(&lines[1..], ["13", firmware], "{said}");
    // Names, time and packages come from us.
    let said = rack.ssh(node, &format!("getent hosts {node}.lab.internal && sudo apt-get update"));
    assert!(said.contains("http://10.77.0.1:8080/apt/"), "{said}");
    let said = rack.ok(&["preseed", node, "--file", "preseed.cfg"]);
    assert!(said.starts_with("#_preseed_V1") && said.contains("provision/token password ***"));
}

#[test]
fn a_bios_and_a_uefi_machine_are_installed_by_preseed_with_docker() {
    let rack = Rack::with_uplink("e2epre", &[Bios, Uefi], &image_cache(), LONG);
    have_image(&rack);
    let builds = ["node01", "node02"].map(|n| install(&rack, n, "docker"));
    builds.iter().for_each(|b| deployed(&rack, b));
    is_right(&rack, "node01", "bios");
    is_right(&rack, "node02", "uefi");
}

/// M19: a site's own file that names no mirror, so that the installer asks.
#[test]
fn an_installer_that_stops_at_a_question_is_failed_with_the_questions_name() {
    let rack = Rack::with_uplink("e2eask", &[Bios], &image_cache(), LONG);
    have_image(&rack);
    let own = rack.lab.dir.join("state/pxe");
    std::fs::create_dir_all(&own).unwrap();
    std::fs::write(own.join("mirror.cfg"), "d-i mirror/country string manual\n").unwrap();
    let id = install(&rack, "node01", "base");
    let b = rack.wait_end(&id, 900);
    assert_eq!(b["outcome"], "failed", "{}", rack.story(&id));
    let why = b["reason"].as_str().unwrap();
    assert!(why.contains("stopped at a question that nobody answered: mirror/"), "{why}");
    let said = rack.ok(&["explain", "node01"]);
    assert!(said.contains("install.question"), "{said}");
    // The log is the build's, and has no secret in it.
    let log = rack.ok(&["builds", "--build", &id, "--log"]);
    assert!(log.contains("Menu item 'choose-mirror' selected"), "{log}");
    assert!(log.contains("provision/token ***") && !log.contains(&format!("{id}.")), "a token");
}
