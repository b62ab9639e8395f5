//! Who made a network card, for strangers on the wire. The registry that
//! Debian's `ieee-data` installs is asked when it is there; else the makers
//! found in racks.

use crate::model::Mac;

const REGISTRY: &str = "/usr/share/ieee-data/oui.txt";

const MAKERS: &[(&str, &[&str])] = &[
    (
        "Dell",
        &[
            "00:14:22", "00:1d:09", "00:1e:c9", "00:21:9b", "00:22:19", "00:24:e8", "00:26:b9",
            "14:18:77", "18:66:da", "24:6e:96", "2c:ea:7f", "34:17:eb", "4c:d9:8f", "84:8f:69",
            "90:b1:1c", "b0:83:fe", "b8:2a:72", "b8:ca:3a", "d4:be:d9", "e4:43:4b", "ec:f4:bb",
            "f0:1f:af", "f8:bc:12",
        ],
    ),
    ("QEMU", &["52:54:00"]),
    ("VMware", &["00:0c:29", "00:50:56"]),
    ("VirtualBox", &["08:00:27"]),
    ("Intel", &["00:1b:21", "3c:fd:fe", "68:05:ca", "90:e2:ba", "a0:36:9f"]),
    ("Supermicro", &["00:25:90", "0c:c4:7a", "3c:ec:ef", "ac:1f:6b"]),
    ("HPE", &["3c:d9:2b", "94:57:a5", "9c:b6:54"]),
    ("Broadcom", &["00:10:18"]),
    ("Mellanox", &["00:02:c9", "0c:42:a1", "24:8a:07", "7c:fe:90", "b8:59:9f", "ec:0d:9a"]),
    ("Chelsio", &["00:07:43"]),
    ("Raspberry Pi", &["b8:27:eb", "dc:a6:32"]),
];

/// The maker's name, or `unknown`.
pub fn vendor(mac: Mac) -> String {
    let oui = &mac.to_string()[..8];
    if let Some((name, _)) = MAKERS.iter().find(|(_, ouis)| ouis.contains(&oui)) {
        return (*name).to_owned();
    }
    let wanted = oui.replace(':', "-").to_uppercase();
    let found = std::fs::read_to_string(REGISTRY).ok().and_then(|text| {
        let line = text.lines().find(|l| l.starts_with(&wanted) && l.contains("(hex)"))?;
        Some(line.split("(hex)").nth(1)?.trim().to_owned())
    });
    found.unwrap_or_else(|| "unknown".to_owned())
}
