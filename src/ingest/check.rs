//! Says of an image that it passed or failed a check, and signs it: an in-toto
//! Statement v1 with a test-result v0.1 predicate, beside the provenance. The
//! latest word on a check is the one that counts.

use super::provenance::{self, VerifyError, digest_set};
use crate::model::{Digest, Invalid, Time};
use crate::tls::signing::SigningKey;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The predicate's type.
pub(super) const PREDICATE: &str = "https://in-toto.io/attestation/test-result/v0.1";
/// Longest note, in characters.
const LONGEST_NOTE: usize = 500;

/// Outcome of a check of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Checked {
    /// Name of the check: lower-case letters, digits, `-`, `_` and `.`.
    pub check: String,
    /// Of the image.
    pub digest: Digest,
    /// Whether it passed.
    pub passed: bool,
    /// Who says so.
    pub by: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Time,
    /// In a few words, what was done or why it failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// Whether `name` can be the name of a check.
///
/// # Errors
/// What would be right.
pub fn check_name(name: &str) -> Result<(), Invalid> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    if (1..=64).contains(&name.len()) && name.bytes().all(plain) {
        return Ok(());
    }
    let want = "1 to 64 lower-case letters, digits, '-', '_' or '.'";
    Err(Invalid::new("name of a check", name, want))
}

/// The statement about an image of `repository`, signed.
pub fn attest(c: &Checked, repository: &str, key: &SigningKey) -> Vec<u8> {
    let note: String = c.note.chars().take(LONGEST_NOTE).collect();
    let (passed, failed) =
        if c.passed { (vec![&c.check], vec![]) } else { (vec![], vec![&c.check]) };
    let statement = json!({
        "_type": provenance::STATEMENT,
        "subject": [{ "name": repository, "digest": digest_set(&c.digest.to_string()) }],
        "predicateType": PREDICATE,
        "predicate": {
            "result": if c.passed { "PASSED" } else { "FAILED" },
            "configuration": [{ "name": c.check }],
            "passedTests": passed,
            "failedTests": failed,
            // Fields beside the specification's carry the maker's name.
            "provision_checkedBy": c.by,
            "provision_checkedOn": c.at,
            "provision_note": note,
        },
    });
    provenance::sign(statement.to_string().as_bytes(), key)
}

/// What a predicate of ours says.
pub(super) fn read(p: &Value, image: &Digest) -> Result<Checked, VerifyError> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let form = |why: &str| VerifyError::Form(why.to_owned());
    Ok(Checked {
        check: text(&p["configuration"][0]["name"]),
        digest: *image,
        passed: match p["result"].as_str() {
            Some("PASSED") => true,
            Some("FAILED" | "WARNED") => false,
            _ => return Err(form("its result is none that is known")),
        },
        by: text(&p["provision_checkedBy"]),
        at: text(&p["provision_checkedOn"]).parse().map_err(|_| form("it has no time"))?,
        note: text(&p["provision_note"]),
    })
}

/// The latest word on `check`, of all that was said.
pub fn latest<'a>(all: impl IntoIterator<Item = &'a Checked>, check: &str) -> Option<&'a Checked> {
    all.into_iter().filter(|c| c.check == check).max_by_key(|c| c.at)
}

#[cfg(test)]
mod tests {
    use super::super::provenance::{Said, read as read_envelope, verify};
    use super::*;

    fn checked(passed: bool, second: i64) -> Checked {
        Checked {
            check: "smoke".into(),
            digest: Digest::of(b"image"),
            passed,
            by: "ada".into(),
            at: Time::from_second(1_800_000_000 + second).unwrap(),
            note: "ran".into(),
        }
    }

    #[test]
    fn what_is_signed_is_read_again_and_is_no_provenance() {
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::load_or_make(&dir.path().join("key")).unwrap();
        let c = checked(true, 0);
        let bytes = attest(&c, "staging/web", &key);
        let public = key.verifying_key();
        assert_eq!(read_envelope(&bytes, &public, &c.digest), Ok(Said::Checked(c.clone())));
        assert!(verify(&bytes, &public, &c.digest).is_err());
        let other = Digest::of(b"other");
        assert!(matches!(
            read_envelope(&bytes, &public, &other),
            Err(VerifyError::OtherImage { .. })
        ));
    }

    #[test]
    fn the_latest_word_counts() {
        let all = [checked(true, 0), checked(false, 5), checked(true, 3)];
        assert!(!latest(&all, "smoke").unwrap().passed);
        assert!(latest(&all, "load").is_none());
    }

    #[test]
    fn names_are_narrow() {
        assert!(check_name("smoke-1.2_x").is_ok());
        for bad in ["", "A", "a b", "a/b", &"x".repeat(65)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }
}
