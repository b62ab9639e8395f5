//! Ethernet addresses: the identity of a node on the wire.

use super::Invalid;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A unicast 48-bit MAC address. Written `52:54:00:12:34:56`; read with `:`,
/// `-`, `.` (Cisco's three groups) or no separator, in either case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, utoipa::ToSchema)]
#[schema(
    value_type = String,
    pattern = r"^(?!(00[:-]){5}00$|0000\.0000\.0000$|000000000000$)([0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){5}|[0-9A-Fa-f][02468ACEace](-[0-9A-Fa-f]{2}){5}|[0-9A-Fa-f][02468ACEace][0-9A-Fa-f]{2}(\.[0-9A-Fa-f]{4}){2}|[0-9A-Fa-f][02468ACEace][0-9A-Fa-f]{10})$",
    example = "52:54:00:12:34:56"
)]
pub struct Mac([u8; 6]);

impl Mac {
    /// From the bytes of a frame or of `chaddr`; refuses group and zero
    /// addresses, which no network card has as its own (IEEE 802 §8.2).
    pub fn from_bytes(bytes: [u8; 6]) -> Option<Self> {
        (bytes[0] & 1 == 0 && bytes != [0; 6]).then_some(Self(bytes))
    }

    /// The six bytes, in transmission order.
    pub fn bytes(self) -> [u8; 6] {
        self.0
    }

    /// The first three bytes: who made the card.
    pub fn oui(self) -> [u8; 3] {
        [self.0[0], self.0[1], self.0[2]]
    }

    /// As pxelinux and iPXE write it in file names: `52-54-00-12-34-56`.
    pub fn hyphenated(self) -> String {
        self.to_string().replace(':', "-")
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = Invalid;

    fn from_str(s: &str) -> Result<Self, Invalid> {
        let bad = || {
            Invalid::new(
                "MAC address",
                s,
                "six pairs of hexadecimal digits, such as 52:54:00:12:34:56, not a group address",
            )
        };
        let shape_ok = match s.len() {
            17 => {
                let sep = s.as_bytes()[2];
                (sep == b':' || sep == b'-')
                    && s.bytes().enumerate().all(|(i, b)| (i % 3 == 2) == (b == sep))
            }
            14 => s.bytes().enumerate().all(|(i, b)| (i % 5 == 4) == (b == b'.')),
            12 => true,
            _ => false,
        };
        if !shape_ok {
            return Err(bad());
        }
        let digits: String = s.chars().filter(|c| !matches!(c, ':' | '-' | '.')).collect();
        let raw = hex::decode(&digits).map_err(|_| bad())?;
        let bytes: [u8; 6] = raw.try_into().map_err(|_| bad())?;
        Self::from_bytes(bytes).ok_or_else(bad)
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_common_way_of_writing_a_mac_is_one_value() {
        let want: Mac = "52:54:00:ab:cd:ef".parse().unwrap();
        for s in ["52-54-00-AB-CD-EF", "5254.00ab.cdef", "525400ABCDEF"] {
            assert_eq!(s.parse::<Mac>().unwrap(), want, "{s}");
        }
        assert_eq!(want.to_string(), "52:54:00:ab:cd:ef");
        assert_eq!(want.hyphenated(), "52-54-00-ab-cd-ef");
    }

    #[test]
    fn what_is_not_a_unicast_mac_is_refused() {
        for s in [
            "",
            "52:54:00:ab:cd",
            "ff:ff:ff:ff:ff:ff",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "52:54-00:ab:cd:ef",
            "5254000abcdé",
            "zz:54:00:ab:cd:ef",
        ] {
            assert!(s.parse::<Mac>().is_err(), "{s}");
        }
    }
}
