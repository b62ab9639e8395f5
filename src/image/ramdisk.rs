//! The installer's ramdisk: busybox, the kernel modules that real servers
//! need, and the firmware those ask for. The agent is not in it: it travels as
//! a second archive that the kernel unpacks over the first.

use super::cpio::Cpio;
use super::modules::{Modules, module_name, parse_aliases};
use super::recipe::{DISKS, EXTRAS, NICS};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The ramdisk is unpacked by one emulated or cold core before anything else
/// happens: small matters more here than fast to pack.
const LEVEL: i32 = 15;

/// Programs of busybox that a person in the rescue shell wants, and the agent
/// a few of.
const APPLETS: [&str; 44] = [
    "sh", "ip", "mount", "umount", "ls", "cat", "dmesg", "ps", "kill", "top", "vi", "less", "grep",
    "sed", "awk", "find", "cp", "mv", "rm", "mkdir", "ln", "chmod", "chroot", "df", "du", "free",
    "head", "tail", "sleep", "date", "hexdump", "lsmod", "modprobe", "insmod", "lspci", "blkid",
    "fdisk", "ping", "wget", "udhcpc", "reboot", "poweroff", "sync", "tar",
];

/// Why the ramdisk cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum RamdiskError {
    /// Reading failed.
    #[error("{}: {source}", .path.display())]
    Io {
        /// File.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The tree has no kernel, or more than one.
    #[error("the root file system has {0} kernels in /lib/modules, must have one")]
    Kernels(usize),
    /// A module cannot be unpacked.
    #[error("cannot unpack module {0}")]
    Unpack(String),
    /// No busybox on this host.
    #[error("no static busybox on this host: install the package busybox-static")]
    Busybox,
}

/// A ramdisk and what is in it.
#[derive(Debug)]
pub struct Ramdisk {
    /// The compressed archive.
    pub bytes: Vec<u8>,
    /// Modules in it, by name.
    pub modules: Vec<String>,
    /// Wanted modules that this kernel does not have.
    pub missing: Vec<String>,
}

/// The release of the one kernel in `tree`.
pub fn kernel_release(tree: &Path) -> Result<String, RamdiskError> {
    let dir = tree.join("usr/lib/modules");
    let entries = fs::read_dir(&dir).map_err(|source| RamdiskError::Io { path: dir, source })?;
    let mut releases: Vec<String> =
        entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect();
    match releases.pop() {
        Some(release) if releases.is_empty() => Ok(release),
        Some(_) => Err(RamdiskError::Kernels(releases.len() + 1)),
        None => Err(RamdiskError::Kernels(0)),
    }
}

/// Makes the ramdisk from the kernel modules in `tree`.
pub fn build(tree: &Path, release: &str) -> Result<Ramdisk, RamdiskError> {
    let dir = tree.join("usr/lib/modules").join(release);
    let text = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    let modules =
        Modules::parse(&text("modules.dep"), &text("modules.softdep"), &text("modules.builtin"));
    let mut paths = BTreeSet::new();
    let mut missing = Vec::new();
    for name in NICS.iter().chain(&DISKS).chain(&EXTRAS) {
        let order = modules.order(name);
        if order.is_empty() && !modules.is_builtin(name) {
            missing.push((*name).to_owned());
        }
        paths.extend(order.into_iter().map(str::to_owned));
    }
    let names: BTreeSet<String> = paths.iter().map(|p| module_name(p)).collect();
    let mut cpio = base(&busybox()?);
    let root = format!("lib/modules/{release}");
    for path in &paths {
        let content = unpacked(&dir.join(path))?;
        add_firmware(&mut cpio, tree, &content);
        let plain = path.split_inclusive(".ko").next().unwrap_or(path);
        cpio.file(&format!("{root}/{plain}"), 0o644, &content);
    }
    cpio.file(&format!("{root}/modules.dep"), 0o644, modules.dep_text(&paths).as_bytes());
    let all_aliases = text("modules.alias");
    let aliases: String = parse_aliases(&all_aliases)
        .into_iter()
        .filter(|(_, module)| names.contains(&module_name(module)))
        .map(|(pattern, module)| format!("alias {pattern} {module}\n"))
        .collect();
    cpio.file(&format!("{root}/modules.alias"), 0o644, aliases.as_bytes());
    let soft: String = text("modules.softdep")
        .lines()
        .filter(|l| l.split_whitespace().nth(1).is_some_and(|n| names.contains(&module_name(n))))
        .map(|l| format!("{l}\n"))
        .collect();
    cpio.file(&format!("{root}/modules.softdep"), 0o644, soft.as_bytes());
    let archive = cpio.finish();
    let bytes = zstd::bulk::compress(&archive, LEVEL)
        .map_err(|source| RamdiskError::Io { path: "ramdisk".into(), source })?;
    Ok(Ramdisk { bytes, modules: names.into_iter().collect(), missing })
}

/// The second archive: the agent as `/init`. Served beside the image's
/// ramdisk, so that a new agent needs no new image.
pub fn agent_cpio(agent: &[u8]) -> Vec<u8> {
    let mut cpio = Cpio::default();
    cpio.file("init", 0o755, agent);
    cpio.finish()
}

fn base(busybox: &[u8]) -> Cpio {
    let mut cpio = Cpio::default();
    for dir in ["proc", "sys", "run", "tmp", "mnt", "root", "etc", "sbin"] {
        cpio.directory(dir);
    }
    // Before devtmpfs is mounted the kernel opens the console from here.
    cpio.character("dev/console", 0o600, 5, 1);
    cpio.character("dev/null", 0o666, 1, 3);
    cpio.file("bin/busybox", 0o755, busybox);
    for applet in APPLETS {
        cpio.link(&format!("bin/{applet}"), "busybox");
    }
    // Where the kernel looks for it when a file system or protocol is asked for.
    cpio.link("sbin/modprobe", "../bin/busybox");
    cpio.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n");
    cpio.file("etc/group", 0o644, b"root:x:0:\n");
    cpio
}

fn busybox() -> Result<Vec<u8>, RamdiskError> {
    // The packages busybox and busybox-static have the same path; only the
    // static one names no interpreter.
    for path in ["/bin/busybox", "/usr/bin/busybox"] {
        if let Ok(bytes) = fs::read(path)
            && !contains(&bytes[..bytes.len().min(4096)], b"/lib64/ld-linux")
        {
            return Ok(bytes);
        }
    }
    Err(RamdiskError::Busybox)
}

fn contains(hay: &[u8], needle: &[u8]) -> bool {
    hay.windows(needle.len()).any(|w| w == needle)
}

fn unpacked(path: &Path) -> Result<Vec<u8>, RamdiskError> {
    let tool = match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => {
            return fs::read(path)
                .map_err(|source| RamdiskError::Io { path: path.to_owned(), source });
        }
    };
    let done = Command::new(tool).arg("-dc").arg(path).output();
    match done {
        Ok(done) if done.status.success() => Ok(done.stdout),
        Ok(_) => Err(RamdiskError::Unpack(path.display().to_string())),
        Err(source) => Err(RamdiskError::Io { path: tool.into(), source }),
    }
}

/// Adds the firmware that a module names in its `.modinfo`, where the image
/// has it; most drivers work without, or with what the card holds.
fn add_firmware(cpio: &mut Cpio, tree: &Path, module: &[u8]) {
    let mut rest = module;
    while let Some(at) = rest.windows(9).position(|w| w == b"firmware=") {
        rest = &rest[at + 9..];
        let end = rest.iter().position(|b| *b == 0).unwrap_or(rest.len());
        let Ok(name) = std::str::from_utf8(&rest[..end]) else { continue };
        if name.contains("..") || name.is_empty() {
            continue;
        }
        for base in ["usr/lib/firmware", "lib/firmware"] {
            if let Ok(content) = fs::read(tree.join(base).join(name)) {
                cpio.file(&format!("lib/firmware/{name}"), 0o644, &content);
                break;
            }
        }
    }
}
