//! Counters that protocols keep, by their names in [`super::Ctx::counters`], as
//! families for Prometheus. A name that is in no table here is left out, and a
//! test holds the tables to the names.

use crate::metrics::{Exposition, Kind};
use std::collections::BTreeMap;

/// Counters whose names are a protocol and an outcome: prefix, family, help,
/// and outcomes that are listed from the start.
const OUTCOMES: [(&str, &str, &str, &[&str]); 4] = [
    (
        "dhcp_",
        "provision_dhcp_packets_total",
        "DHCP packets that came, by what became of them.",
        &["offer", "ack", "nak"],
    ),
    ("dns_", "provision_dns_queries_total", "DNS queries, by what became of them.", &["answered"]),
    (
        "time_",
        "provision_time_packets_total",
        "NTP packets, by what became of them.",
        &["answered"],
    ),
    (
        "tftp_",
        "provision_tftp_transfers_total",
        "TFTP transfers, by how they ended.",
        &["done", "failed", "timed_out"],
    ),
];

/// Numbers that stand alone: name, family, help.
const ALONE: [(&str, &str, &str); 13] = [
    (
        "tftp_sent_bytes",
        "provision_tftp_sent_bytes_total",
        "Bytes that TFTP clients have confirmed.",
    ),
    ("tftp_active", "provision_tftp_transfers_active", "TFTP transfers under way."),
    (
        "sightings_lost",
        "provision_sightings_lost_total",
        "Sightings of protocols that were too many to be written down.",
    ),
    (
        "syslog_lost",
        "provision_syslog_lost_total",
        "Lines of installers' logs that were too many to be written down.",
    ),
    ("cache_hits_total", "provision_cache_hits_total", "Packages answered from the disk."),
    ("cache_misses_total", "provision_cache_misses_total", "Packages that had to be fetched."),
    (
        "cache_joined_total",
        "provision_cache_joined_total",
        "Requests that joined a fetch that was under way.",
    ),
    (
        "cache_stale_total",
        "provision_cache_stale_total",
        "Indices served as they were, since the archive did not answer.",
    ),
    (
        "cache_refused_total",
        "provision_cache_refused_total",
        "Requests for what may not be asked for.",
    ),
    ("cache_failed_total", "provision_cache_failed_total", "Fetches of packages that failed."),
    (
        "cache_upstream_bytes_total",
        "provision_cache_upstream_bytes_total",
        "Bytes of packages that came from outside.",
    ),
    (
        "cache_sent_bytes_total",
        "provision_cache_sent_bytes_total",
        "Bytes of packages that went to clients.",
    ),
    ("cache_bytes", "provision_cache_bytes", "Bytes of packages on the disk."),
];

/// Writes them.
pub(super) fn write(counters: &BTreeMap<String, u64>, e: &mut Exposition) {
    let alone = |name: &str| ALONE.iter().any(|(own, ..)| *own == name);
    for (prefix, family, help, usual) in OUTCOMES {
        let mut all: BTreeMap<&str, u64> = usual.iter().map(|o| (*o, 0)).collect();
        let own = counters.iter().filter(|(name, _)| !alone(name));
        all.extend(own.filter_map(|(name, n)| Some((name.strip_prefix(prefix)?, *n))));
        let mut f = e.family(family, Kind::Counter, help);
        all.iter().for_each(|(outcome, n)| f.is(&[("outcome", outcome)], *n));
    }
    for (name, family, help) in ALONE {
        let Some(n) = counters.get(name) else { continue };
        let kind = if family.ends_with("_total") { Kind::Counter } else { Kind::Gauge };
        e.family(family, kind, help).is(&[], *n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_counter_is_in_one_family_and_usual_outcomes_are_listed_before_they_happen() {
        let cache = crate::cache::Counts::default().all();
        let mut all: BTreeMap<String, u64> = cache.into_keys().zip(100..).collect();
        for (name, n) in [("dhcp_offer", 3), ("tftp_done", 4), ("tftp_sent_bytes", 5)] {
            all.insert(name.into(), n);
        }
        for (name, n) in [("tftp_active", 6), ("cache_bytes", 7), ("dns_no_data", 8)] {
            all.insert(name.into(), n);
        }
        let mut e = Exposition::new();
        write(&all, &mut e);
        let text = e.text();
        for (name, n) in &all {
            let lines = text.lines().filter(|l| l.ends_with(&format!(" {n}")));
            assert_eq!(lines.count(), 1, "{name} {n} in\n{text}");
        }
        for line in [
            "provision_dhcp_packets_total{outcome=\"offer\"} 3",
            "provision_dhcp_packets_total{outcome=\"nak\"} 0",
            "provision_tftp_sent_bytes_total 5",
            "# TYPE provision_tftp_transfers_active gauge",
            "# TYPE provision_cache_hits_total counter",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
