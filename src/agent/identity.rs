//! Makes the written image this node: name, network, users, keys, and the
//! agent's own part on the installed system.

use super::chroot::{ChrootError, run};
use super::target::{Kind, Target};
use crate::model::plan::{InstallPlan, NetworkPlan, UserPlan};
use std::fs;
use std::io;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown};
use std::time::Duration;

/// Why the node could not be given its identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file.
    #[error("{what}: {source}")]
    Io {
        /// What was done.
        what: &'static str,
        /// Cause.
        source: io::Error,
    },
    /// A program.
    #[error(transparent)]
    Program(#[from] ChrootError),
    /// The plan asks for something that cannot be written safely.
    #[error("{what} {value:?} is not valid")]
    Invalid {
        /// Field.
        what: &'static str,
        /// Value.
        value: String,
    },
}

fn io(what: &'static str) -> impl Fn(io::Error) -> IdentityError {
    move |source| IdentityError::Io { what, source }
}

/// A random UUID, version 4 (RFC 9562 §5.4).
pub fn random_uuid() -> io::Result<[u8; 16]> {
    let mut u = [0u8; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut u)?;
    u[6] = u[6] & 0x0F | 0x40;
    u[8] = u[8] & 0x3F | 0x80;
    Ok(u)
}

/// As `8-4-4-4-12` hexadecimal digits.
pub fn uuid_text(u: &[u8; 16]) -> String {
    let h = hex::encode(u);
    format!("{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..])
}

/// Everything that is files alone; needs no program of the new system.
/// `root` and `esp` are the file systems' UUIDs.
pub fn write_files(
    target: &mut Target,
    plan: &InstallPlan,
    root: &str,
    esp: &str,
    uefi: bool,
) -> Result<(), IdentityError> {
    let name = plan.node.as_str();
    let files = [
        ("/etc/hostname", format!("{name}\n")),
        ("/etc/hosts", hosts(name, &plan.network)),
        ("/etc/fstab", fstab(root, esp, uefi)),
        ("/etc/systemd/network/10-provision.network", network_unit(&plan.network)),
    ];
    for (path, text) in files {
        target.write(path, 0o644, Kind::Identity, &text).map_err(io("writing identity"))?;
    }
    let machine_id = random_uuid().map_err(io("random numbers"))?;
    target
        .write("/etc/machine-id", 0o444, Kind::Identity, &format!("{}\n", hex::encode(machine_id)))
        .map_err(io("writing machine-id"))?;

    let common = [
        ("/etc/resolv.conf", resolv_conf(&plan.network)),
        ("/etc/systemd/timesyncd.conf.d/provision.conf", timesyncd(&plan.network)),
        ("/etc/apt/sources.list", plan.apt_sources.clone()),
        ("/etc/timezone", format!("{}\n", plan.timezone)),
    ];
    for (path, text) in common.iter().filter(|(_, text)| !text.is_empty()) {
        target.write(path, 0o644, Kind::Common, text).map_err(io("writing settings"))?;
    }
    set_timezone(target, &plan.timezone)
}

fn set_timezone(target: &mut Target, zone: &str) -> Result<(), IdentityError> {
    let plain = zone.split('/').all(|part| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'+'))
    });
    let file = format!("/usr/share/zoneinfo/{zone}");
    if !plain || !target.path(&file).is_file() {
        return Err(IdentityError::Invalid { what: "time zone", value: zone.to_owned() });
    }
    target.link("/etc/localtime", &file).map_err(io("setting the time zone"))
}

fn hosts(name: &str, network: &NetworkPlan) -> String {
    let full = if network.domain.is_empty() {
        name.to_owned()
    } else {
        format!("{name}.{} {name}", network.domain)
    };
    format!(
        "127.0.0.1\tlocalhost\n{}\t{full}\n\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
        network.address
    )
}

fn fstab(root: &str, esp: &str, uefi: bool) -> String {
    // Mounted when somebody looks into it: the boot need not wait for it, and
    // an unclean FAT cannot keep the node from booting.
    let options =
        if uefi { "noauto,x-systemd.automount,x-systemd.idle-timeout=60," } else { "noauto," };
    format!(
        "UUID={root}\t/\text4\terrors=remount-ro\t0\t1\n\
         UUID={esp}\t/boot/efi\tvfat\t{options}nofail,umask=0077\t0\t0\n"
    )
}

/// Bound to the MAC; asks DHCP with the MAC as client identifier, so that the
/// node has one address from firmware to system.
fn network_unit(network: &NetworkPlan) -> String {
    format!(
        "[Match]\nMACAddress={}\n\n[Network]\nDHCP=ipv4\nIPv6AcceptRA=no\nLinkLocalAddressing=no\n\n\
         [DHCPv4]\nClientIdentifier=mac\nUseDomains=yes\nUseHostname=no\n",
        network.mac
    )
}

fn resolv_conf(network: &NetworkPlan) -> String {
    let mut out = String::new();
    if !network.domain.is_empty() {
        out.push_str(&format!("search {}\n", network.domain));
    }
    for server in network.dns.iter().take(3) {
        out.push_str(&format!("nameserver {server}\n"));
    }
    out
}

fn timesyncd(network: &NetworkPlan) -> String {
    if network.ntp.is_empty() {
        return String::new();
    }
    let servers: Vec<String> = network.ntp.iter().map(ToString::to_string).collect();
    format!("[Time]\nNTP={}\n", servers.join(" "))
}

/// Users with sudo, keys and groups; groups that do not exist are left out.
pub fn make_users(target: &mut Target, plan: &InstallPlan) -> Result<(), IdentityError> {
    for user in &plan.users {
        let valid = user.name.len() <= 32
            && user.name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
            && user
                .name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'));
        if !valid {
            return Err(IdentityError::Invalid { what: "user name", value: user.name.clone() });
        }
        make_user(target, user, &plan.profile.groups)?;
    }
    Ok(())
}

fn make_user(target: &mut Target, user: &UserPlan, more: &[String]) -> Result<(), IdentityError> {
    let known = super::target::read(target, "/etc/group");
    let exists = |g: &str| known.lines().any(|l| l.split(':').next() == Some(g));
    let mut groups = vec!["sudo"];
    groups.extend(more.iter().map(String::as_str));
    groups.retain(|g| exists(g));
    let patience = Duration::from_secs(60);
    let list = groups.join(",");
    let mut arguments = vec!["useradd", "--create-home", "--shell", "/bin/bash"];
    if !list.is_empty() {
        arguments.extend(["--groups", &list]);
    }
    arguments.push(&user.name);
    run(target, &arguments, patience)?;
    target.manifest.note(&format!("user {}", user.name), &list);
    if let Some(hash) = &user.password_hash {
        set_password(target, &user.name, hash)?;
    }
    target
        .write(
            &format!("/etc/sudoers.d/provision-{}", user.name),
            0o440,
            Kind::Common,
            &format!("{} ALL=(ALL:ALL) NOPASSWD: ALL\n", user.name),
        )
        .map_err(io("writing sudoers"))?;
    write_keys(target, user)
}

/// Into the shadow file itself: a hash has no business on a command line.
fn set_password(target: &mut Target, user: &str, hash: &str) -> Result<(), IdentityError> {
    if !hash.starts_with('$') || hash.contains([':', '\n']) {
        return Err(IdentityError::Invalid { what: "password hash of", value: user.to_owned() });
    }
    let path = target.path("/etc/shadow");
    let text = fs::read_to_string(&path).map_err(io("reading shadow"))?;
    let new: String = text
        .lines()
        .map(|line| {
            let mut fields: Vec<&str> = line.split(':').collect();
            if fields.len() > 1 && fields[0] == user {
                fields[1] = hash;
            }
            fields.join(":") + "\n"
        })
        .collect();
    // In place: owner, group and mode stay.
    fs::write(&path, new).map_err(io("writing shadow"))
}

fn write_keys(target: &mut Target, user: &UserPlan) -> Result<(), IdentityError> {
    let passwd = super::target::read(target, "/etc/passwd");
    let ids = passwd.lines().find_map(|l| {
        let mut fields = l.split(':');
        (fields.next()? == user.name).then_some(())?;
        Some((fields.nth(1)?.parse::<u32>().ok()?, fields.next()?.parse::<u32>().ok()?))
    });
    let (uid, gid) =
        ids.ok_or_else(|| IdentityError::Invalid { what: "user", value: user.name.clone() })?;
    let home = format!("/home/{}/.ssh", user.name);
    let mut text = String::new();
    for key in &user.ssh_keys {
        if key.contains('\n') {
            return Err(IdentityError::Invalid { what: "ssh key", value: key.clone() });
        }
        text.push_str(key.trim());
        text.push('\n');
    }
    let file = format!("{home}/authorized_keys");
    target.write(&file, 0o600, Kind::Common, &text).map_err(io("writing authorized_keys"))?;
    fs::set_permissions(target.path(&home), fs::Permissions::from_mode(0o700))
        .map_err(io("writing authorized_keys"))?;
    for path in [&home, &file] {
        chown(target.path(path), Some(uid), Some(gid)).map_err(io("owner of authorized_keys"))?;
    }
    Ok(())
}

/// The public SSH host keys, made by `ssh-keygen` in the new root.
pub fn host_keys(target: &Target) -> Result<Vec<String>, IdentityError> {
    let dir = target.path("/etc/ssh");
    let mut keys = Vec::new();
    for entry in fs::read_dir(&dir).map_err(io("reading /etc/ssh"))? {
        let path = entry.map_err(io("reading /etc/ssh"))?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if name.starts_with("ssh_host_") && name.ends_with(".pub") {
            let text = fs::read_to_string(&path).map_err(io("reading host keys"))?;
            keys.push(text.trim().to_owned());
        }
    }
    keys.sort();
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> NetworkPlan {
        NetworkPlan {
            mac: "52:54:00:00:00:01".parse().unwrap(),
            address: "10.0.0.7".parse().unwrap(),
            prefix: 24,
            gateway: None,
            dns: vec!["10.0.0.1".parse().unwrap()],
            ntp: vec!["10.0.0.1".parse().unwrap()],
            domain: "rack.example".to_owned(),
        }
    }

    #[test]
    fn the_node_s_files_say_what_the_plan_says() {
        let n = network();
        assert!(hosts("node01", &n).contains("10.0.0.7\tnode01.rack.example node01\n"));
        assert!(network_unit(&n).contains("MACAddress=52:54:00:00:00:01\n"));
        assert!(network_unit(&n).contains("ClientIdentifier=mac\n"));
        assert_eq!(resolv_conf(&n), "search rack.example\nnameserver 10.0.0.1\n");
        assert_eq!(timesyncd(&n), "[Time]\nNTP=10.0.0.1\n");
    }

    #[test]
    fn a_password_goes_into_shadow_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/shadow"), "root:*:1::::::\nops:!:2::::::\n").unwrap();
        let mut t = Target::here(dir.path());
        set_password(&mut t, "ops", "$6$salt$hash").unwrap();
        let text = fs::read_to_string(dir.path().join("etc/shadow")).unwrap();
        assert_eq!(text, "root:*:1::::::\nops:$6$salt$hash:2::::::\n");
        for bad in ["plain", "$6$a:b", "$6$a\nx"] {
            assert!(set_password(&mut t, "ops", bad).is_err());
        }
        assert!(!t.manifest.to_text().contains("hash"));
    }

    #[test]
    fn a_time_zone_cannot_leave_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("usr/share/zoneinfo/Etc")).unwrap();
        fs::write(dir.path().join("usr/share/zoneinfo/Etc/UTC"), "").unwrap();
        let mut t = Target::here(dir.path());
        set_timezone(&mut t, "Etc/UTC").unwrap();
        for bad in ["../../etc/passwd", "Nowhere", "", "/etc/passwd"] {
            assert!(set_timezone(&mut t, bad).is_err(), "{bad}");
        }
    }
}
