//! Which kernel modules a machine needs, from depmod's text files: the builder
//! picks the ramdisk's modules with it, and the agent, inside that ramdisk,
//! the machine's.

use std::collections::{BTreeMap, BTreeSet};

/// `modules.dep`, `modules.softdep` and `modules.builtin` of one kernel.
#[derive(Debug, Default)]
pub struct Modules {
    /// Name, with `_` for `-`, to path.
    paths: BTreeMap<String, String>,
    /// Path to the paths it needs, nearest first, as depmod writes them.
    needs: BTreeMap<String, Vec<String>>,
    /// Name to names that should be loaded with it.
    soft: BTreeMap<String, Vec<String>>,
    builtin: BTreeSet<String>,
}

/// `kernel/drivers/net/tg3.ko.xz` → `tg3`; module names take `-` for `_`.
pub fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

impl Modules {
    /// Reads the three files; missing ones are empty text.
    pub fn parse(dep: &str, softdep: &str, builtin: &str) -> Self {
        let mut modules = Self::default();
        for line in dep.lines() {
            let Some((path, needs)) = line.split_once(':') else { continue };
            modules.paths.insert(module_name(path), path.to_owned());
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            modules.needs.insert(path.to_owned(), needs);
        }
        for line in softdep.lines() {
            let mut words = line.split_whitespace();
            if words.next() != Some("softdep") {
                continue;
            }
            let Some(name) = words.next() else { continue };
            let with = words.filter(|w| !w.ends_with(':')).map(module_name);
            modules.soft.entry(module_name(name)).or_default().extend(with);
        }
        modules.builtin = builtin.lines().map(module_name).collect();
        modules
    }

    /// Whether `name` is part of the kernel.
    pub fn is_builtin(&self, name: &str) -> bool {
        self.builtin.contains(&module_name(name))
    }

    /// The path of the module called `name`, if there is one.
    pub fn path(&self, name: &str) -> Option<&str> {
        self.paths.get(&module_name(name)).map(String::as_str)
    }

    /// What has to be loaded for `name`, in order, itself last. Empty when
    /// there is no such module or it is built in. What is only wished for
    /// (softdep) is left out where it does not exist.
    pub fn order(&self, name: &str) -> Vec<&str> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        self.visit(&module_name(name), &mut seen, &mut order);
        order
    }

    fn visit<'a>(&'a self, name: &str, seen: &mut BTreeSet<String>, order: &mut Vec<&'a str>) {
        let Some(path) = self.paths.get(name) else { return };
        if !seen.insert(name.to_owned()) {
            return;
        }
        for wish in self.soft.get(name).into_iter().flatten() {
            self.visit(wish, seen, order);
        }
        // depmod lists the nearest need first: the farthest is loaded first.
        for need in self.needs.get(path).into_iter().flatten().rev() {
            self.visit(&module_name(need), seen, order);
        }
        order.push(path);
    }

    /// `modules.dep` for the given paths alone, `.xz` and the like cut off:
    /// in the ramdisk modules lie unpacked.
    pub fn dep_text(&self, paths: &BTreeSet<String>) -> String {
        let plain = |p: &str| p.split_inclusive(".ko").next().unwrap_or(p).to_owned();
        let mut out = String::new();
        for path in paths {
            out.push_str(&plain(path));
            out.push(':');
            for need in self.needs.get(path).into_iter().flatten() {
                out.push(' ');
                out.push_str(&plain(need));
            }
            out.push('\n');
        }
        out
    }
}

/// `modules.alias` as pairs of pattern and module name.
pub fn parse_aliases(text: &str) -> Vec<(&str, &str)> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("alias")).then_some(())?;
            Some((words.next()?, words.next()?))
        })
        .collect()
}

/// fnmatch(3) with `*`, `?` and `[…]`: the form of device aliases.
pub fn matches(pattern: &str, text: &str) -> bool {
    glob(pattern.as_bytes(), text.as_bytes())
}

fn glob<'a>(mut p: &'a [u8], mut t: &'a [u8]) -> bool {
    // Where to go on when a later part does not fit: the last star.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        match (p.first(), t.first()) {
            (Some(b'*'), _) => {
                p = &p[1..];
                retry = Some((p, t));
            }
            (None, None) => return true,
            (Some(c), Some(have)) => {
                let (fits, rest) = match c {
                    b'?' => (true, &p[1..]),
                    b'[' => class(p, *have),
                    c => (c == have, &p[1..]),
                };
                if fits {
                    (p, t) = (rest, &t[1..]);
                } else if !go_back(&mut retry, &mut p, &mut t) {
                    return false;
                }
            }
            _ => {
                if !go_back(&mut retry, &mut p, &mut t) {
                    return false;
                }
            }
        }
    }
}

fn go_back<'a>(
    retry: &mut Option<(&'a [u8], &'a [u8])>,
    p: &mut &'a [u8],
    t: &mut &'a [u8],
) -> bool {
    match retry {
        Some((after_star, from)) if !from.is_empty() => {
            *from = &from[1..];
            (*p, *t) = (*after_star, *from);
            true
        }
        _ => false,
    }
}

/// Whether `have` is in the class at the front of `p`, and what follows it.
fn class(p: &[u8], have: u8) -> (bool, &[u8]) {
    let Some(end) = p.iter().position(|c| *c == b']') else { return (have == b'[', &p[1..]) };
    let set = &p[1..end];
    let (negated, set) = match set.first() {
        Some(b'!' | b'^') => (true, &set[1..]),
        _ => (false, set),
    };
    let mut found = false;
    let mut n = 0;
    while n < set.len() {
        if n + 2 < set.len() && set[n + 1] == b'-' {
            found |= (set[n]..=set[n + 2]).contains(&have);
            n += 3;
        } else {
            found |= set[n] == have;
            n += 1;
        }
    }
    (found != negated, &p[end + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "kernel/fs/ext4/ext4.ko: kernel/fs/jbd2/jbd2.ko kernel/lib/crc16.ko\n\
        kernel/fs/jbd2/jbd2.ko:\nkernel/lib/crc16.ko:\n\
        kernel/arch/x86/crypto/crc32c-intel.ko.xz:\n\
        kernel/drivers/net/virtio_net.ko.xz: kernel/net/net_failover.ko.xz kernel/net/failover.ko.xz\n\
        kernel/net/net_failover.ko.xz: kernel/net/failover.ko.xz\nkernel/net/failover.ko.xz:\n";

    #[test]
    fn needs_come_before_what_needs_them() {
        let m = Modules::parse(DEP, "softdep ext4 pre: crc32c-intel nosuch\n", "");
        assert_eq!(
            m.order("ext4"),
            [
                "kernel/arch/x86/crypto/crc32c-intel.ko.xz",
                "kernel/lib/crc16.ko",
                "kernel/fs/jbd2/jbd2.ko",
                "kernel/fs/ext4/ext4.ko"
            ]
        );
        assert_eq!(m.order("virtio-net").len(), 3);
        assert!(m.order("nosuch").is_empty());
    }

    #[test]
    fn the_ramdisk_s_dep_file_names_unpacked_modules() {
        let m = Modules::parse(DEP, "", "");
        let paths = m.order("virtio_net").into_iter().map(str::to_owned).collect();
        let text = m.dep_text(&paths);
        assert!(!text.contains(".xz"), "{text}");
        assert_eq!(Modules::parse(&text, "", "").order("virtio_net").len(), 3);
    }

    #[test]
    fn device_aliases_match_as_modprobe_matches_them() {
        let pci = "pci:v00001AF4d00001041sv00001AF4sd00001100bc02sc00i00";
        assert!(matches("pci:v00001AF4d*sv*sd*bc*sc*i*", pci));
        assert!(!matches("pci:v00008086d*sv*sd*bc*sc*i*", pci));
        assert!(matches("pci:v*d*sv*sd*bc02sc[0-3]?i*", pci));
        assert!(!matches("pci:v*d*sv*sd*bc02sc[!0]?i*", pci));
        assert!(matches("*", "") && matches("a*b*c", "aXbYbc") && !matches("a*b", "aXc"));
    }
}
