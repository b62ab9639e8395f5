//! The scripts that an installer runs, run: the choice of the disk, the talk
//! with the server, and what makes the installed system a node.

mod preseed;

use preseed::{bios, feed, minimal, shipped, uefi};
use provision::model::Phase;
use provision::model::plan::{InstalledReport, PhaseReport};
use provision::preseed::{File, Values};
use std::io::Write;
use std::path::Path;
use std::process::Output;

/// A machine's disks as the kernel shows them: name, sectors, serial, wwid.
fn disks(dir: &Path, disks: &[(&str, u64, &str, &str)]) {
    for (name, sectors, serial, wwid) in disks {
        let d = dir.join("block").join(name);
        std::fs::create_dir_all(d.join("device")).unwrap();
        std::fs::write(d.join("removable"), "0\n").unwrap();
        std::fs::write(d.join("ro"), "0\n").unwrap();
        std::fs::write(d.join("size"), format!("{sectors}\n")).unwrap();
        std::fs::write(d.join("serial"), serial).unwrap();
        std::fs::write(d.join("wwid"), format!("{wwid}\n")).unwrap();
    }
}

/// What the disk step comes to: the chosen disk, or the reason.
fn chosen(values: &Values, machine: &[(&str, u64, &str, &str)]) -> Result<String, String> {
    let dir = tempfile::tempdir().unwrap();
    disks(dir.path(), machine);
    let at = dir.path().display().to_string();
    let script = shipped().render(File::Early, values).unwrap().text;
    let functions = script.split("\ncase \"$1\" in\nearly)").next().unwrap();
    std::fs::write(dir.path().join("autoinstall.yaml"), "path: /dev/provision-disk\n").unwrap();
    let functions = functions
        .replace("/sys/block", &format!("{at}/block"))
        .replace("/run/provision", &at)
        .replace("/autoinstall.yaml", &format!("{at}/autoinstall.yaml"));
    let script = format!(
        "{functions}\nphase() {{ :; }}\nleave() {{ :; }}\nbeside() {{ :; }}\nfail() {{ echo \"$1: $2\" >&2; exit 9; }}\ndisk\n"
    );
    let out = feed("sh", &["-s"], &script).unwrap();
    let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    match out.status.code() {
        Some(0) => {
            let disk = std::fs::read_to_string(dir.path().join("disk")).unwrap();
            let told = std::fs::read_to_string(dir.path().join("autoinstall.yaml")).unwrap();
            assert_eq!(told, format!("path: /dev/{disk}"));
            Ok(disk.trim().to_owned())
        }
        Some(9) => Err(said),
        other => panic!("{other:?}: {said}"),
    }
}

#[test]
fn exactly_one_disk_fits_or_none_is_touched() {
    const GB: u64 = 2_000_000;
    let two =
        [("sda", 500 * GB, "S3Z8  nb0k ", "naa.5000c500a1b2c3d4"), ("sdb", 500 * GB, "other", "")];
    assert_eq!(chosen(&bios(), &two).as_deref(), Ok("sda"));
    let mut by_wwn = uefi();
    by_wwn.disk.serial = String::new();
    assert_eq!(chosen(&by_wwn, &two).as_deref(), Ok("sda"));
    by_wwn.disk.min_bytes = 600_000_000_000;
    let e = chosen(&by_wwn, &two).unwrap_err();
    assert!(e.contains("no disk fits") && e.contains("too small"), "{e}");
    let e = chosen(&minimal(), &two).unwrap_err();
    assert!(e.contains("more than one disk fits") && e.contains("serial s3z8 nb0k"), "{e}");
    let one = [("loop0", 500 * GB, "", ""), ("vda", 20 * GB, "", ""), ("vdb", GB, "", "")];
    assert_eq!(chosen(&minimal(), &one).as_deref(), Ok("vda"));
    assert!(chosen(&minimal(), &[]).unwrap_err().contains("no disk at all"));
    let mut by_path = minimal();
    by_path.disk.path = "/dev/vdb".into();
    assert!(chosen(&by_path, &one).unwrap_err().contains("vda serial  wwn  (another path)"));
}

/// Ubuntu's newer installer says nothing of itself; what it writes is told,
/// until the last report has gone out.
#[test]
fn what_is_written_to_the_disk_is_told_as_long_as_the_install_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display().to_string();
    disks(dir.path(), &[("sda", 2_000_000, "", "")]);
    let stat = "  64 0 512 3 1000 20 2048 9 0 12 12 0 0 0 0\n";
    std::fs::write(dir.path().join("block/sda/stat"), stat).unwrap();
    for (file, text) in [("disk", "sda\n"), ("wgetrc", "")] {
        std::fs::write(dir.path().join(file), text).unwrap();
    }
    let script = shipped().render(File::Early, &minimal()).unwrap().text;
    let functions = script.split("\ncase \"$1\" in\nearly)").next().unwrap();
    let functions = functions.replace("/sys/block", &format!("{at}/block"));
    let functions = functions.replace("/run/provision", &at);
    // After the first the last steps begin, after the second all is told.
    let post = "post() { cat \"$2\"; echo; if [ -e AT/at ]; then rm AT/wgetrc; else echo profile > AT/at; fi; }";
    let script = format!("{functions}\n{}\nsleep() {{ :; }}\nwatch\n", post.replace("AT", &at));
    let out = feed("sh", &["-s"], &script).unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let told: Vec<PhaseReport> = said.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let told: Vec<(Phase, u64)> = told.iter().map(|r| (r.phase, r.bytes)).collect();
    assert_eq!(told, [(Phase::Image, 2048 * 512), (Phase::Profile, 2048 * 512)]);
}

/// Runs `late.sh` on a directory in place of `/target`; programs of the new
/// system do nothing, scripts of the profile run.
fn late(values: &Values, at: &Path) -> Output {
    let text = shipped().render(File::Late, values).unwrap().text;
    let dir = at.display().to_string();
    for d in ["target/etc/sudoers.d", "target/etc/ssh", "target/var/lib/dpkg", "target/usr/sbin"] {
        std::fs::create_dir_all(at.join(d)).unwrap();
    }
    let key = "ssh-ed25519 AAAAC3Nz root@node\n";
    std::fs::write(at.join("target/etc/ssh/ssh_host_ed25519_key.pub"), key).unwrap();
    std::fs::write(at.join("target/var/lib/dpkg/status"), "").unwrap();
    let passwd = "root:x:0:0:root:/root:/bin/sh\nops:x:1000:1000::/home/ops:/bin/bash\n";
    std::fs::write(at.join("target/etc/passwd"), passwd).unwrap();
    std::fs::write(at.join("disk"), "sda\n").unwrap();
    let stubs = "mount() { :; }\nget() { echo \"$1\" > \"$2\"; }\n\
                 chroot() { case \"$2\" in */scripts/*) (cd \"$1\" && sh \".$2\") ;; esac; }\nuser=";
    let text = text
        .replacen("user=", stubs, 1)
        .replace("/target", &format!("{dir}/target"))
        .replace("/run/provision", &dir);
    // As the installer's debconf has it around its last command.
    let around = "DEBIAN_HAS_FRONTEND=1 DEBCONF_REDIR=1 DEBCONF_OLD_FD_BASE=3\n\
                  export DEBIAN_HAS_FRONTEND DEBCONF_REDIR DEBCONF_OLD_FD_BASE\n";
    feed("sh", &["-s"], &format!("{around}{text}")).unwrap()
}

#[test]
fn the_late_script_makes_the_system_a_node_and_its_exit_code_decides() {
    let dir = tempfile::tempdir().unwrap();
    let mut values = uefi();
    values.profile.scripts[0].text =
        "#!/bin/sh\necho \"it's on\" > etc/motd\nenv > etc/environment\n".into();
    let out = late(&values, dir.path());
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{said}");
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(read("target/home/ops/.ssh/authorized_keys"), "ssh-ed25519 AAAAC3Nz ops@o'brien\n");
    assert_eq!(read("target/etc/sudoers.d/provision-ops"), "ops ALL=(ALL:ALL) NOPASSWD: ALL\n");
    assert_eq!(read("target/etc/provision/agent.json"), values.agent_config);
    assert_eq!(read("target/etc/systemd/system/provision-agent.service"), values.agent_unit);
    assert_eq!(read("target/usr/lib/provision/provision-agent"), "/node/agent\n");
    assert_eq!(read("target/etc/provision/labels"), "rack=it's \"r1\"\n");
    assert_eq!(read("target/etc/motd"), "it's on\n");
    // Debconf of a package that is installed now would speak to nobody.
    let env = read("target/etc/environment");
    assert!(!env.contains("DEBIAN_HAS_FRONTEND") && !env.contains("DEBCONF_"), "{env}");
    assert!(env.contains("DEBIAN_FRONTEND=noninteractive"), "{env}");
    assert!(!dir.path().join("target/usr/lib/provision/scripts").exists());
    assert!(!dir.path().join("target/usr/sbin/policy-rc.d").exists());
    let mode = |name: &str| {
        let meta = std::fs::metadata(dir.path().join(name)).unwrap();
        std::os::unix::fs::MetadataExt::mode(&meta) & 0o777
    };
    assert_eq!(mode("target/etc/provision/agent.json"), 0o600);
    assert_eq!(mode("target/etc/sudoers.d/provision-ops"), 0o440);
    let report: InstalledReport = serde_json::from_str(&read("installed")).unwrap();
    assert_eq!(report.disk, "/dev/sda");
    assert_eq!(report.host_keys, ["ssh-ed25519 AAAAC3Nz root@node"]);

    let dir = tempfile::tempdir().unwrap();
    values.profile.scripts[0].text = "#!/bin/sh\necho no network >&2\nexit 7\n".into();
    let out = late(&values, dir.path());
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(7), "{said}");
    assert!(said.contains("no network") && said.contains("10-docker.sh: exit code 7"), "{said}");
    assert!(!dir.path().join("installed").exists());
}

/// Takes one request at a time and answers 200; hands on what was asked.
fn listen(requests: usize) -> (u16, std::thread::JoinHandle<Vec<String>>) {
    use std::io::Read;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = std::thread::spawn(move || {
        let mut asked = Vec::new();
        for _ in 0..requests {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
            let mut text = Vec::new();
            loop {
                let mut some = [0; 4096];
                let n = stream.read(&mut some).unwrap();
                text.extend_from_slice(&some[..n]);
                let so_far = String::from_utf8_lossy(&text).replace("\r\n", "\n");
                let whole = so_far.split_once("\n\n").is_some_and(|(head, body)| {
                    let length = head.lines().find_map(|l| l.strip_prefix("Content-Length: "));
                    body.len() >= length.map_or(0, |l| l.trim().parse().unwrap())
                });
                if n == 0 || whole {
                    asked.push(so_far);
                    break;
                }
            }
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nfetch\n";
            stream.write_all(answer.as_bytes()).unwrap();
        }
        asked
    });
    (port, served)
}

/// Once with the wget that is there, once with busybox alone, whose wget takes
/// no header in the installers.
#[test]
fn the_installer_speaks_to_the_server_by_wget_and_by_nc() {
    for by_nc in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let tool = if by_nc { "busybox" } else { "wget" };
        if feed("sh", &["-c", &format!("command -v {tool}")], "")
            .is_none_or(|o| !o.status.success())
        {
            eprintln!("{tool} is not installed: not run");
            continue;
        }
        let (port, served) = listen(2);
        let mut values = bios();
        values.server = format!("http://127.0.0.1:{port}");
        let script = shipped().render(File::Early, &values).unwrap().text;
        let functions = script.split("\ncase \"$1\" in\nearly)").next().unwrap();
        let functions = functions.replace("/run/provision", &dir.path().display().to_string());
        let header = "header = Authorization: Bearer one-time-token\n";
        std::fs::write(dir.path().join("wgetrc"), header).unwrap();
        let old = if by_nc { "wget() { return 1; }\nnc() { busybox nc \"$@\"; }\n" } else { "" };
        let at = dir.path().join("got");
        let script =
            format!("{functions}\n{old}phase disk 'a \"b\" c'\nget /node/late {}\n", at.display());
        let out = feed("sh", &["-s"], &script).unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        assert_eq!(std::fs::read_to_string(at).unwrap(), "fetch\n");
        let asked = served.join().unwrap();
        assert!(asked[0].starts_with("POST /node/phase HTTP/1."), "{asked:?}");
        assert!(asked[1].starts_with("GET /node/late HTTP/1."), "{asked:?}");
        for request in &asked {
            assert!(request.contains("\nAuthorization: Bearer one-time-token\n"), "{request}");
        }
        let body = asked[0].split_once("\n\n").unwrap().1;
        let report: provision::model::plan::PhaseReport = serde_json::from_str(body).unwrap();
        assert_eq!(report.message.as_deref(), Some("a ?b? c "));
    }
}

/// What the first step does about a clock that is `off` seconds off, and what
/// it says of it.
fn early(off: i64) -> String {
    let values = bios();
    let script = shipped().render(File::Early, &values).unwrap().text;
    let functions = script.split("\ncase \"$1\" in\nearly)").next().unwrap();
    let is = values.now + off;
    let script = format!(
        "{functions}\ndate() {{ [ \"$*\" = +%s ] && echo {is} || echo \"date $*\" >&2; }}\n\
         phase() {{ echo \"off $3\" >&2; }}\nearly\n"
    );
    let out = feed("sh", &["-s"], &script).unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{said}");
    said.trim().replace('\n', ", ")
}

#[test]
fn a_clock_that_is_wrong_is_set_and_told() {
    assert_eq!(early(0), "off 0");
    assert_eq!(early(3600), "off 0", "an old rendering");
    assert_eq!(early(-1_799_900_000), "date -u -s @1800000000, off -1799900000");
    assert_eq!(early(90_000), "date -u -s @1800000000, off 90000");
}
