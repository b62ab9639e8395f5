//! Loads the drivers of this machine: for every device the kernel has found,
//! the modules whose alias fits; again, as long as new devices turn up behind
//! the new drivers (a bus, then what is on it).

use super::journal::say;
use crate::image::modules::{Modules, matches, module_name, parse_aliases};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Loaded whatever the machine is: what disks look like above their
/// controller, and what lies on them.
const ALWAYS: [&str; 8] = [
    "sd_mod",
    "crc32c_generic",
    "crc32c-intel",
    "ext4",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nls_utf8",
];

/// The ramdisk's modules.
pub struct Loader {
    dir: PathBuf,
    modules: Modules,
    aliases: Vec<(String, String)>,
    loaded: BTreeSet<String>,
    seen: BTreeSet<String>,
}

impl Loader {
    /// For the running kernel; without modules where the ramdisk has none.
    pub fn open() -> Self {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let dir = Path::new("/lib/modules").join(release.trim());
        let text = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
        let modules = Modules::parse(&text("modules.dep"), &text("modules.softdep"), "");
        let aliases = text("modules.alias");
        let aliases = parse_aliases(&aliases)
            .into_iter()
            .map(|(pattern, module)| (pattern.to_owned(), module.to_owned()))
            .collect();
        Self { dir, modules, aliases, loaded: BTreeSet::new(), seen: BTreeSet::new() }
    }

    /// Loads `name` and what it needs.
    pub fn load(&mut self, name: &str) {
        let order: Vec<String> = self.modules.order(name).into_iter().map(str::to_owned).collect();
        for path in order {
            if !self.loaded.insert(module_name(&path)) {
                continue;
            }
            let file = self.dir.join(&path);
            let result = File::open(&file).map_err(|e| e.to_string()).and_then(|f| {
                match rustix::system::finit_module(&f, c"", 0) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
                    // A driver that finds none of its devices: crc32c-intel
                    // on a processor without the instruction.
                    Err(rustix::io::Errno::NODEV) => Ok(()),
                    Err(e) => Err(e.to_string()),
                }
            });
            if let Err(e) = result {
                say(format_args!("module {}: {e}", module_name(&path)));
            }
        }
    }

    /// Loads the fixed set.
    pub fn load_always(&mut self) {
        for name in ALWAYS {
            self.load(name);
        }
        if Path::new("/sys/firmware/efi").exists() {
            self.load("efivarfs");
        }
    }

    /// Loads drivers for all devices; returns the names of modules that are
    /// new. Called again, it looks only at devices that are new.
    pub fn load_for_devices(&mut self) -> Vec<String> {
        let before = self.loaded.clone();
        for _ in 0..8 {
            let mut wanted = BTreeSet::new();
            for alias in device_aliases() {
                if self.seen.insert(alias.clone()) {
                    let fitting = self.aliases.iter().filter(|(p, _)| matches(p, &alias));
                    wanted.extend(fitting.map(|(_, m)| m.clone()));
                }
            }
            if wanted.is_empty() {
                break;
            }
            for name in wanted {
                self.load(&name);
            }
        }
        self.loaded.difference(&before).cloned().collect()
    }
}

/// The aliases of all devices on all buses.
fn device_aliases() -> Vec<String> {
    let mut out = Vec::new();
    let Ok(buses) = fs::read_dir("/sys/bus") else { return out };
    for bus in buses.filter_map(Result::ok) {
        let Ok(devices) = fs::read_dir(bus.path().join("devices")) else { continue };
        for device in devices.filter_map(Result::ok) {
            if let Ok(alias) = fs::read_to_string(device.path().join("modalias")) {
                out.push(alias.trim().to_owned());
            }
        }
    }
    out
}
