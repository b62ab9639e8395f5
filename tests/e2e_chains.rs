//! Boot chains with real firmware: Secure Boot from power-on to the installed
//! system, UEFI HTTP boot, pxelinux, and a kernel that nobody signed. Run by
//! `make test-chains` with `--test-threads=1`.

mod common;

use common::rack::{Rack, SHORT, copy, image_cache, until};
use provision::lab::LabFirmware::{self, Bios, UefiHttp, UefiSecure, UefiSecureHttp};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A rack whose first phases have the time that firmware in system management
/// mode takes when it is emulated; the server reads `extra` as well.
fn rack(name: &str, firmware: LabFirmware, extra: &str) -> Rack {
    let mut rack = Rack::up(name, &[firmware], None);
    slow_firmware(&mut rack, &image_cache(), extra);
    rack
}

fn slow_firmware(rack: &mut Rack, images: &Path, extra: &str) {
    rack.configure(images, None, &format!("{SHORT}\n{extra}"));
    let file = rack.lab.dir.join("build-server.toml");
    let mut text = std::fs::read_to_string(&file).unwrap();
    for (short, long) in [
        ("\ndhcp = 30\n", "\ndhcp = 300\n"),
        ("\nloader = 40\n", "\nloader = 300\n"),
        ("\nkernel = 40\n", "\nkernel = 300\n"),
        ("\ninstaller = 90\n", "\ninstaller = 300\n"),
    ] {
        assert!(text.contains(short), "{text}");
        text = text.replace(short, long);
    }
    std::fs::write(&file, text).unwrap();
    rack.kill_server();
    rack.start_server();
}

fn log(rack: &Rack, action: &str) -> String {
    rack.ok(&["log", "--node", "node01", "--action", action, "--limit", "1000"])
}

/// Ends an install that has shown what it was for.
fn cancel(rack: &Rack, build: &str) {
    let b = rack.build(build);
    rack.ok(&["cancel", b["operation"].as_str().unwrap()]);
    rack.wait_end(build, 30);
    rack.lab.tell(0, "power set 0").unwrap();
}

/// Everything to and from TFTP's port on the boot network.
struct Capture {
    tcpdump: Child,
    file: PathBuf,
}

impl Capture {
    fn start(rack: &Rack) -> Self {
        let file = rack.dir.path().join("tftp.pcap");
        let mut c = rack.lab.command("tcpdump");
        c.args(["-i", "br0", "-U", "-Z", "root", "-w"]).arg(&file).args(["udp", "port", "69"]);
        let tcpdump = c.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Its header is written once it listens.
        until("tcpdump listens", 20, || std::fs::metadata(&file).is_ok_and(|m| m.len() >= 24));
        Self { tcpdump, file }
    }

    fn packets(mut self) -> usize {
        let pid = rustix::process::Pid::from_raw(self.tcpdump.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        self.tcpdump.wait().unwrap();
        let out = Command::new("tcpdump").args(["-n", "-r"]).arg(&self.file).output().unwrap();
        String::from_utf8_lossy(&out.stdout).lines().count()
    }
}

/// M11: nobody says that Secure Boot is on; it is found out, remembered, and
/// the disk boots under it, from the firmware and from the network.
#[test]
fn a_node_with_secure_boot_is_installed_through_the_signed_chain_and_says_that_it_is_on() {
    let rack = rack("chsec", UefiSecure, "");
    let b = rack.must_deploy(&rack.install("node01", "base"));
    // EDK2 goes on to HTTP boot, which Debian 12's GRUB cannot do: so the
    // machine is started once more.
    assert_eq!(rack.boots(0), ["network", "network", "disk"]);
    let refused = log(&rack, "boot.refused");
    assert!(refused.contains("snponly.efi") && refused.contains("Secure Boot"), "{refused}");
    let story = rack.ok(&["explain", "node01"]);
    assert!(story.contains("Secure Boot is probably on"), "{story}");
    let files = log(&rack, "tftp.done");
    for f in ["snponly.efi", "shimx64.efi", "grubx64.efi", "grub/grub.cfg", "/kernel", "/ramdisk"] {
        assert!(files.contains(f), "{f}: {files}");
    }
    let state = rack.ssh("node01", "sudo mokutil --sb-state");
    assert_eq!(state.trim(), "SecureBoot enabled");
    let lockdown = rack.ssh("node01", "cat /sys/kernel/security/lockdown");
    assert!(lockdown.contains("[integrity]"), "the kernel knows it too: {lockdown}");
    let entries = rack.ssh("node01", "sudo efibootmgr -v; sudo find /boot/efi -type f");
    for f in ["EFI\\debian\\shimx64.efi", "EFI/BOOT/BOOTX64.EFI", "EFI/BOOT/grubx64.efi"] {
        assert!(entries.to_lowercase().contains(&f.to_lowercase()), "{f}: {entries}");
    }
    let node = rack.json(&["nodes", "show", "node01"]);
    assert_eq!(node["status"]["facts"]["secure_boot"], true, "the agent read it");
    assert_eq!(node["status"]["secure_boot"], true);
    eprintln!("deployed under Secure Boot: {} to {}", b["started"], b["ended"]);

    // A BMC that keeps asking for the network: the node starts from its disk.
    let before = rack.ssh("node01", "cat /proc/sys/kernel/random/boot_id");
    rack.lab.tell(0, "power set 0").unwrap();
    rack.lab.tell(0, "boot set pxe").unwrap();
    rack.lab.tell(0, "power set 1").unwrap();
    until("the disk is started through the network", 240, || {
        let out = rack.ssh_output("node01", "cat /proc/sys/kernel/random/boot_id");
        out.status.success() && String::from_utf8_lossy(&out.stdout) != before
    });
    assert_eq!(rack.boots(0).last().map(String::as_str), Some("network"));
    rack.lab.tell(0, "power set 0").unwrap();

    // Remembered: the next install does not try the unsigned one first.
    let again = rack.install("node01", "base");
    rack.wait_phase(&again, "disk");
    let tried = log(&rack, "boot.refused");
    assert_eq!(tried, refused, "it was not refused a second time");
    cancel(&rack, &again);
    rack.ok(&["log", "--verify"]);
}

/// The firmware starts shim, shim starts GRUB, and GRUB does not start a
/// kernel without a signature.
#[test]
fn an_unsigned_kernel_is_refused_and_explain_says_so() {
    let mut rack = Rack::up("chbad", &[UefiSecure], None);
    let images = rack.dir.path().join("images");
    std::fs::create_dir(&images).unwrap();
    copy(&image_cache().join("debian-12"), &images.join("debian-12"));
    let kernel = images.join("debian-12/kernel");
    let size = std::fs::metadata(&kernel).unwrap().len();
    let sbverify = || {
        let out = Command::new("sbverify").arg("--list").arg(&kernel).output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
    };
    assert!(sbverify().contains("Debian Secure Boot"), "what is served is signed: {}", sbverify());
    let strip = Command::new("sbattach").arg("--remove").arg(&kernel).output().unwrap();
    assert!(strip.status.success(), "{strip:?}");
    // The catalogue knows its size.
    std::fs::OpenOptions::new().write(true).open(&kernel).unwrap().set_len(size).unwrap();
    assert!(sbverify().contains("No signature table present"), "{}", sbverify());
    slow_firmware(&mut rack, &images, "");
    rack.ok(&["nodes", "set", "node01", "--label", "loader=grub"]);

    let id = rack.install("node01", "base");
    let b = rack.wait_end(&id, 900);
    assert_eq!((b["outcome"].as_str(), b["phase"].as_str()), (Some("failed"), Some("kernel")));
    assert_eq!(b["attempt"], 1, "another attempt would end the same way");
    let reason = b["reason"].as_str().unwrap();
    assert!(reason.contains("unsigned kernel is refused"), "{}", rack.story(&id));
    let story = rack.ok(&["explain", "node01"]);
    assert!(story.contains("signature"), "{story}");
    let console = std::fs::read(rack.lab.node_dir(0).join("console.log")).unwrap();
    let console = String::from_utf8_lossy(&console).into_owned();
    assert!(console.contains("bad shim signature"), "{console}");
}

/// M11: no TFTP packet on the wire, with iPXE.
#[test]
fn a_node_boots_by_http_without_one_packet_of_tftp() {
    let rack = rack("chhttp", UefiHttp, "");
    let capture = Capture::start(&rack);
    let id = rack.install("node01", "base");
    rack.wait_phase(&id, "disk");
    assert_eq!(capture.packets(), 0);
    let loader = log(&rack, "boot.loader");
    assert!(loader.contains("snponly.efi"), "{loader}");
    let dhcp = log(&rack, "dhcp.ack");
    assert!(dhcp.contains("HTTP boot firmware"), "{dhcp}");
    cancel(&rack, &id);
}

/// The same under Secure Boot. GRUB has HTTP built in from Debian 13 on.
#[test]
fn a_node_with_secure_boot_boots_by_http_without_one_packet_of_tftp() {
    let loaders = tempfile::tempdir().unwrap();
    grub_with_http(loaders.path());
    let extra = format!("\n[tftp]\nloaders_dir = \"{}\"\n", loaders.path().display());
    let rack = rack("chsechtt", UefiSecureHttp, &extra);
    // Found out by itself as well, but this firmware has no other entry to go
    // on to, and would wait for the deadline.
    rack.ok(&["nodes", "set", "node01", "--label", "loader=grub"]);
    let capture = Capture::start(&rack);
    let id = rack.install("node01", "base");
    rack.wait_phase(&id, "disk");
    assert_eq!(capture.packets(), 0);
    let files = log(&rack, "http.file");
    for f in ["shimx64.efi", "grubx64.efi", "kernel", "ramdisk"] {
        assert!(files.contains(f), "{f}: {files}");
    }
    let node = rack.json(&["nodes", "show", "node01"]);
    assert_eq!(node["status"]["facts"]["secure_boot"], true);
    cancel(&rack, &id);
}

/// Debian 13's signed GRUB and iPXE's loaders, in a site's own directory.
fn grub_with_http(to: &Path) {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let sources = provision::image::sources::for_suite(Path::new("/etc/apt"), "trixie").unwrap();
    let lines: Vec<String> = sources.iter().map(|s| s.line() + "\n").collect();
    std::fs::write(at("sources.list"), lines.concat()).unwrap();
    std::fs::create_dir_all(at("lists/partial")).unwrap();
    std::fs::create_dir_all(at("cache/archives/partial")).unwrap();
    let apt = |args: &[&str]| {
        let mut c = Command::new("apt-get");
        for (key, value) in [
            ("Dir::Etc::sourcelist", at("sources.list")),
            ("Dir::Etc::sourceparts", "/dev/null".into()),
            ("Dir::State::lists", at("lists")),
            ("Dir::Cache", at("cache")),
        ] {
            c.arg("-o").arg(format!("{key}={}", value.display()));
        }
        let out = c.args(["-o", "APT::Sandbox::User=root", "-qq"]).args(args);
        let out = out.current_dir(dir.path()).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    apt(&["update"]);
    apt(&["download", "grub-efi-amd64-signed"]);
    let deb = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path());
    let deb = deb.into_iter().find(|p| p.extension().is_some_and(|e| e == "deb")).unwrap();
    let out = Command::new("dpkg-deb").arg("-x").arg(deb).arg(at("x")).status().unwrap();
    assert!(out.success());
    let grub = at("x/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed");
    std::fs::copy(grub, to.join("grubx64.efi")).unwrap();
}

/// M11: BIOS without iPXE's script; the card's iPXE stands for the firmware.
#[test]
fn a_bios_node_with_its_label_boots_through_pxelinux() {
    let rack = rack("chlx", Bios, "");
    let out = rack.run(&["nodes", "set", "node01", "--label", "loader=pxelinx"]);
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(2), "{err}");
    assert!(err.contains("pxelinux (BIOS)"), "{err}");
    rack.ok(&["nodes", "set", "node01", "--label", "loader=pxelinux"]);
    let id = rack.install("node01", "base");
    rack.wait_phase(&id, "disk");
    let tftp = log(&rack, "tftp.done");
    for f in ["lpxelinux.0", "ldlinux.c32", "pxelinux.cfg/01-52-54-00-77-00-0b"] {
        assert!(tftp.contains(f), "{f}: {tftp}");
    }
    let http = log(&rack, "http.file");
    for f in ["kernel", "agent", "ramdisk"] {
        assert!(http.contains(&format!("file={f}")), "{f}: {http}");
    }
    cancel(&rack, &id);
}
