//! What machine this is, from `/proc` and `/sys`.

use super::network;
use crate::model::node::{DiskFacts, NicFacts};
use crate::model::{Facts, Firmware};
use std::fs;
use std::path::Path;

/// All facts.
pub fn gather() -> Facts {
    let cpuinfo = read("/proc/cpuinfo");
    let field = |key: &str| {
        cpuinfo
            .lines()
            .find_map(|l| Some(l.strip_prefix(key)?.split_once(':')?.1.trim().to_owned()))
    };
    let dmi = |name: &str| read(&format!("/sys/class/dmi/id/{name}"));
    Facts {
        cpu: field("model name").unwrap_or_default(),
        cpus: cpuinfo.lines().filter(|l| l.starts_with("processor")).count() as u32,
        memory: memory(&read("/proc/meminfo")),
        disks: disks(),
        nics: nics(),
        firmware: firmware(),
        secure_boot: secure_boot(),
        hardware: format!("{} {}", dmi("sys_vendor"), dmi("product_name")).trim().to_owned(),
        serial: dmi("product_serial"),
        bios_version: dmi("bios_version"),
        clock: Some(crate::model::Time::now()),
    }
}

/// The firmware that this kernel was started by.
pub fn firmware() -> Firmware {
    if Path::new("/sys/firmware/efi").exists() { Firmware::Uefi } else { Firmware::Bios }
}

/// Whether the firmware enforces signatures: the global variable `SecureBoot`
/// is 1 (UEFI 2.10 §3.3), behind four bytes of attributes. `None` without
/// UEFI, or where its variables cannot be read.
pub fn secure_boot() -> Option<bool> {
    let name = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    let content = fs::read(Path::new("/sys/firmware/efi/efivars").join(name)).ok()?;
    content.get(4).map(|v| *v == 1)
}

fn memory(meminfo: &str) -> u64 {
    let kib = meminfo
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// The machine's own disks: no RAM disks, loops, floppies, optical drives or
/// layers on top of disks; drives without a medium are left out.
pub fn disks() -> Vec<DiskFacts> {
    let Ok(entries) = fs::read_dir("/sys/block") else { return Vec::new() };
    let mut disks: Vec<DiskFacts> = entries
        .filter_map(Result::ok)
        .filter_map(|e| disk(&e.path(), &e.file_name().into_string().ok()?))
        .collect();
    disks.sort_by(|a, b| a.name.cmp(&b.name));
    disks
}

fn disk(path: &Path, name: &str) -> Option<DiskFacts> {
    const NOT_DISKS: [&str; 8] = ["loop", "ram", "zram", "sr", "fd", "dm-", "md", "nbd"];
    if NOT_DISKS.iter().any(|p| name.starts_with(p)) || !path.join("device").exists() {
        return None;
    }
    let text = |file: &str| read_path(&path.join(file));
    let first =
        |files: &[&str]| files.iter().map(|f| text(f)).find(|t| !t.is_empty()).unwrap_or_default();
    // The paths of a multipath NVMe disk: the disk itself is listed beside.
    if text("hidden") == "1" {
        return None;
    }
    let bytes = text("size").parse::<u64>().ok()? * 512;
    if bytes == 0 {
        return None;
    }
    let mut serial = first(&["device/serial", "serial"]);
    if serial.is_empty() {
        serial = page_80(&fs::read(path.join("device/vpd_pg80")).unwrap_or_default());
    }
    // USB sticks often say that they are not removable.
    let usb = fs::canonicalize(path).is_ok_and(|p| p.to_string_lossy().contains("/usb"));
    Some(DiskFacts {
        name: name.to_owned(),
        bytes,
        model: first(&["device/model", "device/name"]),
        serial,
        wwn: first(&["wwid", "device/wwid"]),
        rotational: text("queue/rotational") == "1",
        removable: usb || text("removable") == "1",
        read_only: text("ro") == "1",
    })
}

/// SCSI vital product data page 80: four bytes of header, then the serial.
fn page_80(page: &[u8]) -> String {
    let text = page.get(4..).unwrap_or_default();
    String::from_utf8_lossy(text).trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned()
}

fn nics() -> Vec<NicFacts> {
    network::cards()
        .into_iter()
        .filter_map(|name| {
            let path = Path::new("/sys/class/net").join(&name);
            let driver = fs::read_link(path.join("device/driver")).ok();
            Some(NicFacts {
                mac: network::mac_of(&name)?,
                driver: driver
                    .and_then(|d| Some(d.file_name()?.to_str()?.to_owned()))
                    .unwrap_or_default(),
                link: read_path(&path.join("carrier")) == "1",
                name,
            })
        })
        .collect()
}

fn read(path: &str) -> String {
    read_path(Path::new(path))
}

/// Text of a file, trimmed; empty when it cannot be read, as many of sysfs
/// cannot for devices that do not know the answer.
fn read_path(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(memory("MemTotal:        2014464 kB\nMemFree: 1 kB\n"), 2_014_464 * 1024);
        assert_eq!(memory(""), 0);
    }

    #[test]
    fn a_scsi_serial_number_is_found_behind_its_header() {
        assert_eq!(page_80(b"\x00\x80\x00\x0c   WD-WX11  \x00"), "WD-WX11");
        assert_eq!(page_80(b"\x00"), "");
    }
}
