//! Names that travel into DNS, file paths, templates and shell commands, and
//! are therefore narrow.

use super::Invalid;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

macro_rules! checked_name {
    (
        $(#[$doc:meta])* $ty:ident, $what:literal, $want:literal,
        ($longest:tt, $pattern:tt, $example:tt), $ok:expr
    ) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, utoipa::ToSchema)]
        #[schema(value_type = String, max_length = $longest, pattern = $pattern, example = $example)]
        pub struct $ty(String);

        impl $ty {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $ty {
            type Err = Invalid;
            fn from_str(s: &str) -> Result<Self, Invalid> {
                let ok: fn(&str) -> bool = $ok;
                if ok(s) { Ok(Self(s.to_owned())) } else { Err(Invalid::new($what, s, $want)) }
            }
        }

        impl fmt::Display for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $ty {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Serialize for $ty {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $ty {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl AsRef<str> for $ty {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

fn is_label(s: &str) -> bool {
    (1..=63).contains(&s.len())
        && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !s.starts_with('-')
        && !s.ends_with('-')
}

fn is_file_name(s: &str) -> bool {
    (1..=64).contains(&s.len())
        && s.bytes().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_')
        })
        && s.as_bytes()[0].is_ascii_alphanumeric()
        && !s.contains("..")
}

checked_name!(
    /// A node's host name: one DNS label (RFC 1123 §2.1), lower case, and not
    /// readable as an address, since the API takes a name or an address in
    /// the same place.
    NodeName,
    "node name",
    "1 to 63 of a-z, 0-9 and '-', not starting or ending with '-', with at least one letter",
    (63, "^([0-9][0-9-]*)?[a-z]([a-z0-9-]*[a-z0-9])?$", "node01"),
    |s| is_label(s) && s.bytes().any(|b| b.is_ascii_alphabetic())
);

checked_name!(
    /// The name of an image or a profile: also the name of its directory.
    Name,
    "name",
    "1 to 64 of a-z, 0-9, '-', '_' and '.', starting with a letter or digit, without '..'",
    (64, r"^[a-z0-9](\.?[a-z0-9_-])*\.?$", "debian-12"),
    is_file_name
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_name_is_one_lower_case_dns_label() {
        for s in ["node01", "a", "r1-u07", "7x"] {
            assert!(s.parse::<NodeName>().is_ok(), "{s}");
        }
        for s in ["", "Node01", "-a", "a-", "a.b", "a b", "10", "a\nb", "é", &"a".repeat(64)] {
            assert!(s.parse::<NodeName>().is_err(), "{s:?}");
        }
    }

    #[test]
    fn an_image_name_cannot_leave_its_directory() {
        assert!("debian-12".parse::<Name>().is_ok());
        for s in ["..", ".", "a/b", "../x", "a..b", ".hidden", "A"] {
            assert!(s.parse::<Name>().is_err(), "{s:?}");
        }
    }
}
