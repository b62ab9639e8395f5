//! Preseed and autoinstall files for three kinds of node, compared with what
//! is stored and read by the programs that will read them; a site's own files;
//! faults, each with file and line. `PROVISION_EXPECT=write` stores anew.

mod preseed;

use preseed::{bios, feed, kinds, shipped};
use provision::preseed::{File, Preseeds, Release, Values, without_token};
use std::path::PathBuf;

fn good(program: &str, args: &[&str], text: &str) {
    let began = std::time::Instant::now();
    let (out, said) = loop {
        let Some(out) = feed(program, args, text) else {
            return eprintln!("{program} is not installed: not run");
        };
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        // debconf fails without a word while another test has its lock.
        if out.status.success() || !said.is_empty() || began.elapsed().as_secs() > 60 {
            break (out, said);
        }
    };
    assert!(out.status.success() && said.is_empty(), "{program} {args:?}: {said}\n{text}");
}

#[test]
fn three_kinds_of_node_get_the_files_that_are_stored() {
    let store = std::env::var("PROVISION_EXPECT").is_ok_and(|v| v == "write");
    let root: PathBuf = option_env!("CARGO_MANIFEST_DIR").unwrap_or(".").into();
    let mut differ = Vec::new();
    for (kind, values) in kinds() {
        for file in File::all() {
            let text = shipped().render(file, &values).unwrap().text;
            let path = root.join("tests/expected/preseed").join(kind).join(file.template());
            if store {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, &text).unwrap();
            } else if std::fs::read_to_string(&path).unwrap_or_default() != text {
                differ.push(path.display().to_string());
            }
        }
    }
    assert!(differ.is_empty(), "PROVISION_EXPECT=write stores anew: {differ:#?}");
}

#[test]
fn the_programs_that_read_the_files_take_them() {
    for (_, values) in kinds() {
        for file in File::all() {
            let text = shipped().render(file, &values).unwrap().text;
            let name = file.template();
            match name.rsplit('.').next().unwrap() {
                "cfg" => good("debconf-set-selections", &["-c"], &text),
                "sh" => ["sh", "dash", "bash"].iter().for_each(|s| good(s, &["-n"], &text)),
                _ if have_pyyaml() => {
                    let script = "import sys, yaml, json\n\
                                  print(json.dumps(yaml.safe_load(sys.stdin)))";
                    let out = feed("python3", &["-c", script], &text).unwrap();
                    let said = String::from_utf8_lossy(&out.stderr);
                    assert!(out.status.success(), "{said}\n{text}");
                    let read: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
                    if file == File::UserData {
                        user_data_says(&read, &values);
                    }
                }
                _ => eprintln!("python3-yaml is not installed: not run"),
            }
        }
    }
}

fn have_pyyaml() -> bool {
    feed("python3", &["-c", "import yaml"], "").is_some_and(|o| o.status.success())
}

fn user_data_says(read: &serde_json::Value, values: &Values) {
    let a = &read["autoinstall"];
    assert_eq!(a["version"], 1);
    assert_eq!(a["identity"]["hostname"], values.node.as_str());
    let hash = values.password_hash.as_deref().unwrap_or("!");
    assert_eq!(a["identity"]["password"], hash);
    assert_eq!(a["ssh"]["authorized-keys"], serde_json::json!(values.ssh_keys));
    assert_eq!(a["storage"]["config"][0]["path"], "/dev/provision-disk");
    let flag = if values.uefi { "boot" } else { "bios_grub" };
    assert_eq!(a["storage"]["config"][1]["flag"], flag);
    assert_eq!(read["write_files"][0]["permissions"], "0600");
}

#[test]
fn a_preseed_file_leaves_no_question_that_is_known_to_stop_an_install() {
    for (_, values) in kinds() {
        for release in Release::ALL {
            let text = shipped().render(File::Preseed(release), &values).unwrap().text;
            for key in [
                "debian-installer/locale",
                "keyboard-configuration/xkb-keymap",
                "netcfg/get_hostname",
                "mirror/country string manual",
                "mirror/protocol",
                "mirror/http/hostname string 10.1.0.1:8080",
                "apt-setup/services-select",
                "passwd/user-password-crypted",
                "partman/confirm boolean true",
                "partman/confirm_nooverwrite boolean true",
                "partman-auto/expert_recipe",
                "base-installer/install-recommends boolean false",
                "base-installer/initramfs-tools/driver-policy select dep",
                "pkgsel/run_tasksel boolean false",
                "tasksel/first",
                "hw-detect/load_firmware boolean false",
                "finish-install/reboot_in_progress",
                "preseed/early_command",
                "preseed/late_command",
            ] {
                assert!(text.contains(key), "{release}: {key}");
            }
            // The installer logs its commands, so the token is in none.
            let with_token: Vec<&str> =
                text.lines().filter(|l| l.contains("one-time-token")).collect();
            assert_eq!(with_token, ["d-i provision/token password one-time-token"]);
            assert!(!without_token(&text, &values.token).contains("one-time-token"));
        }
    }
}

#[test]
fn a_sites_own_part_counts_from_the_next_use() {
    let dir = tempfile::tempdir().unwrap();
    let preseeds = Preseeds::new(dir.path().to_owned());
    let file = File::Preseed(Release::Debian13);
    let before = preseeds.render(file, &bios()).unwrap();
    assert!(before.files.contains_key("packages.cfg") && before.files.len() > 8);
    let own = "d-i pkgsel/include string vim {{ labels.rack | default(\"none\") | sh }}\n";
    std::fs::write(dir.path().join("packages.cfg"), own).unwrap();
    let mut values = bios();
    values.labels = [("rack".to_owned(), "r1".to_owned())].into();
    let after = preseeds.render(file, &values).unwrap();
    assert!(after.text.contains("pkgsel/include string vim 'r1'\n"), "{}", after.text);
    assert_ne!(before.files["packages.cfg"], after.files["packages.cfg"]);
    assert_eq!(before.files["user.cfg"], after.files["user.cfg"]);
    assert_eq!(preseeds.lint(), []);
    // The same with a label that ends the word: refused, and said where.
    values.labels = [("rack".to_owned(), "a\nd-i x/y string z".to_owned())].into();
    let e = preseeds.render(file, &values).unwrap_err().to_string();
    assert!(e.contains("label"), "{e}");
}

#[test]
fn the_lint_names_file_and_line_of_each_fault() {
    assert_eq!(shipped().lint(), [], "the shipped ones");
    let faults: &[(&str, &str, &str)] = &[
        (
            "locale.cfg",
            "# own\nd-i debian-installer/locale string {{ langage }}\n",
            "locale.cfg:2: ",
        ),
        ("locale.cfg", "# own\n\nd-i time/zone {{ timezone }}\n", "locale.cfg:3: "),
        (
            "user.cfg",
            "{% if uefi %}\n{% endif %}\nd-i a/b boolean yes\n",
            "user.cfg:3: a/b is true or false",
        ),
        ("user.cfg", "d-i a/b string {{ nonsense\n", "user.cfg:"),
        ("user.cfg", "d-i passwd/x string {{ password_hash }}\n", "user.cfg:1: "),
        (
            "disk.cfg",
            "\nd-i partman/early_command string if x\n",
            "disk.cfg:2: partman/early_command: ",
        ),
        ("ask.sh", "# own\n{% for k in ssh_keys %}\n{% endfor %}\nfi\n", "ask.sh:4: "),
        ("ask.sh", "echo {{ node }}\n", "ask.sh:1: "),
        ("storage.yaml", "  storage:\n\tx: 1\n", "storage.yaml:2: "),
        ("storage.yaml", "  storag:\n    swap:\n      size: 0\n", "storage.yaml:"),
        ("storage.yaml", "  updatess: all\n", "perhaps 'updates'"),
        (
            "storage.yaml",
            "  storage:\n    config:\n      - type: disc\n        id: a\n",
            "storage.yaml:3: ",
        ),
        ("user-data.yaml", "#cloud-config\nautoinstall:\n  version: 2\n", "user-data.yaml:3: "),
        (
            "user-data.yaml",
            "#cloud-config\nautoinstall:\n  version: 1\n  late-commands:\n    - \"if x\"\n",
            "user-data.yaml:5: ",
        ),
        (
            "user-data.yaml",
            "autoinstall:\n  version: 1\n  identity:\n    username: a\n",
            "user-data.yaml:",
        ),
        ("late.sh", "{% include \"nowhere.sh\" %}\n", "late.sh:1: "),
        ("late.sh", "{% include \"../secret\" %}\n", "late.sh:1: "),
    ];
    for (file, text, want) in faults {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(file), text).unwrap();
        // debconf was asked above; each time costs seconds.
        let found = Preseeds::new(dir.path().to_owned()).lint_quickly();
        let said: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert!(
            said.iter().any(|s| s.contains(want)),
            "{file} {text:?}: want {want}, found {said:#?}"
        );
    }
}
