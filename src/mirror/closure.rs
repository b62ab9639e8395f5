//! Which packages an install takes. apt resolves, as it would on the node; the
//! base system is resolved a second time the way debootstrap does it, which
//! takes the first alternative always.

use super::MirrorError;
use crate::archive::Index;
use crate::archive::index::groups;
use crate::image::apt::Apt;
use std::collections::BTreeSet;

/// What the Debian installer installs beside the base system and what a site
/// asks for: kernel, its own helpers' wishes, the languages. With `?` where a
/// release may not have it.
pub const INSTALLER: [&str; 26] = [
    "linux-image-amd64",
    "initramfs-tools",
    "busybox",
    "zstd",
    "openssh-server",
    "sudo",
    "ca-certificates",
    "chrony",
    "console-setup",
    "keyboard-configuration",
    "locales",
    "eject",
    "pciutils",
    "usbutils",
    "laptop-detect",
    "dosfstools",
    "e2fsprogs",
    "udev",
    "grub-common",
    "os-prober",
    "tasksel",
    "tasksel-data",
    "installation-report",
    "qemu-guest-agent",
    "dhcpcd-base?",
    "isc-dhcp-client?",
];

/// Boot loaders, which do not go onto one system: a set each.
pub const LOADERS: [&[&str]; 2] = [
    &["grub-pc"],
    &["grub-efi-amd64", "grub-efi-amd64-signed", "shim-signed", "efibootmgr", "mokutil"],
];

/// What was found.
#[derive(Debug, Default)]
pub struct Closure {
    /// Paths in the archive.
    pub files: BTreeSet<String>,
    /// Names that were asked for.
    pub asked: Vec<String>,
    /// Optional ones that do not exist.
    pub absent: Vec<String>,
}

/// Resolves `wanted` on top of the base system.
pub fn closure(apt: &Apt, index: &Index, wanted: &[String]) -> Result<Closure, MirrorError> {
    let mut out = Closure::default();
    let mut unknown = Vec::new();
    let there = |name: &str| index.newest(name).is_some() || !index.providers(name).is_empty();
    for name in wanted {
        let (bare, optional) = match name.strip_suffix('?') {
            Some(bare) => (bare, true),
            None => (name.as_str(), false),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "+-.:".contains(c);
        if !bare.starts_with(|c: char| c.is_ascii_alphanumeric()) || !bare.chars().all(plain) {
            unknown.push(format!("{bare:?} (not a package's name)"));
        } else if there(bare) {
            out.asked.push(bare.to_owned());
        } else if optional {
            out.absent.push(bare.to_owned());
        } else {
            unknown.push(bare.to_owned());
        }
    }
    if !unknown.is_empty() {
        return Err(MirrorError::Packages(unknown));
    }
    let base = base(index);
    for loader in LOADERS {
        let mut names: Vec<&str> = base.iter().map(String::as_str).collect();
        names.extend(out.asked.iter().map(String::as_str));
        names.extend(loader.iter().copied().filter(|n| there(n)));
        out.files.extend(resolve(apt, &names)?);
    }
    for name in first_alternatives(index, &base) {
        out.files.extend(index.newest(&name).map(|p| p.filename.clone()));
    }
    Ok(out)
}

/// What debootstrap installs: priority `required` and `important`.
fn base(index: &Index) -> BTreeSet<String> {
    let of_base = |p: &&crate::archive::Package| {
        matches!(p.fields.get("Priority"), Some("required" | "important"))
            || p.fields.get("Essential") == Some("yes")
    };
    index.all().filter(of_base).map(|p| p.name.clone()).collect()
}

/// Everything that debootstrap's own resolver takes.
fn first_alternatives(index: &Index, roots: &BTreeSet<String>) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut todo: Vec<String> = roots.iter().cloned().collect();
    while let Some(name) = todo.pop() {
        let Some(p) = index.newest(&name) else { continue };
        if !all.insert(name) {
            continue;
        }
        for field in ["Pre-Depends", "Depends"] {
            for (_, names) in groups(p.fields.get(field).unwrap_or_default()) {
                let Some(first) = names.first() else { continue };
                if index.newest(first).is_some() {
                    todo.push(first.clone());
                } else if let Some(provider) = index.providers(first).first() {
                    todo.push((*provider).to_owned());
                }
            }
        }
    }
    all
}

/// Paths of what apt would fetch to install these on an empty system.
fn resolve(apt: &Apt, names: &[&str]) -> Result<BTreeSet<String>, MirrorError> {
    let mut command = apt.command("apt-get");
    command.args(["install", "-y", "-qq", "--no-install-recommends", "--print-uris"]);
    command.arg("--").args(names);
    let done = command
        .output()
        .map_err(|e| MirrorError::Resolve(format!("apt-get cannot be started: {e}")))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
        let last: Vec<&str> = said.lines().rev().take(12).collect();
        let text: Vec<&str> = last.into_iter().rev().map(str::trim).collect();
        return Err(MirrorError::Resolve(text.join(" / ")));
    }
    Ok(String::from_utf8_lossy(&done.stdout).lines().filter_map(pool_path).collect())
}

/// `'http://HOST/debian/pool/…' …` → `pool/…`, decoded.
fn pool_path(line: &str) -> Option<String> {
    let uri = line.strip_prefix('\'')?.split('\'').next()?;
    let at = uri.find("/pool/")? + 1;
    let mut out = Vec::new();
    let mut rest = uri[at..].bytes();
    while let Some(b) = rest.next() {
        if b == b'%' {
            let hex = [rest.next()?, rest.next()?];
            out.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
        } else {
            out.push(b);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_apt_prints_is_read() {
        let line = "'http://m.example/debian/pool/main/g/gcc/libstdc%2b%2b6_14%7erc_amd64.deb' libstdc++6_14_amd64.deb 716456 SHA256:ab";
        let path = "pool/main/g/gcc/libstdc++6_14~rc_amd64.deb";
        assert_eq!(pool_path(line).as_deref(), Some(path));
        assert_eq!(pool_path("Reading package lists..."), None);
        assert_eq!(pool_path("'http://m.example/pool/%zz' x"), None);
    }
}
