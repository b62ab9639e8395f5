//! `[registry.s3]`: images in a bucket instead of a directory. Keys come from
//! a file of mode 0600 or the environment, never from the configuration, which
//! is kept in git.

use super::resolved::{Fault, fault};
use crate::model::Secret;
use serde::Deserialize;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// As written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WireS3 {
    bucket: Spanned<String>,
    endpoint: Option<Spanned<String>>,
    region: Option<String>,
    prefix: Option<Spanned<String>>,
    ca_file: Option<PathBuf>,
    credentials_file: Option<PathBuf>,
}

/// Which bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3 {
    /// Name.
    pub bucket: String,
    /// `https://HOST[:PORT]`, or `http://…`; none for Amazon's own.
    pub endpoint: Option<String>,
    /// Region.
    pub region: String,
    /// Everything is below it in the bucket; empty for its root.
    pub prefix: String,
    /// Authority of the endpoint's certificate.
    pub ca_file: Option<PathBuf>,
    /// Where the keys are; none for the environment.
    pub credentials_file: Option<PathBuf>,
}

/// Keys of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// Access key id.
    pub id: Secret,
    /// Secret access key.
    pub secret: Secret,
    /// Session token.
    pub session: Option<Secret>,
}

pub(super) fn s3(w: WireS3, base: &Path) -> Result<S3, Fault> {
    // Amazon's rule, which the others keep to.
    let name = w.bucket.get_ref();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c);
    if !(3..=63).contains(&name.len()) || !name.chars().all(plain) {
        let m = format!(
            "bucket = {name:?} must be 3 to 63 lower-case letters, digits, dots and dashes"
        );
        return fault(w.bucket.span(), m);
    }
    if let Some(e) = &w.endpoint {
        let url = e.get_ref();
        let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        if host.is_none_or(|h| h.trim_end_matches('/').is_empty() || h.contains('@')) {
            let m = format!("endpoint = {url:?} must be https://HOST[:PORT]");
            return fault(e.span(), m);
        }
    }
    if let Some(p) = &w.prefix {
        let word = |c: &str| {
            let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            !c.is_empty() && c != "." && c != ".." && c.chars().all(fine)
        };
        let text = p.get_ref().trim_end_matches('/');
        if !text.is_empty() && !text.split('/').all(word) {
            let m = format!("prefix = {text:?} must be such as registry or rack1/registry");
            return fault(p.span(), m);
        }
    }
    Ok(S3 {
        endpoint: w.endpoint.map(|e| e.into_inner().trim_end_matches('/').to_owned()),
        region: w.region.unwrap_or_else(|| "us-east-1".into()),
        prefix: w
            .prefix
            .map(|p| p.into_inner().trim_end_matches('/').to_owned())
            .unwrap_or_default(),
        ca_file: w.ca_file.map(|f| base.join(f)),
        credentials_file: w.credentials_file.map(|f| base.join(f)),
        bucket: w.bucket.into_inner(),
    })
}

impl S3 {
    /// Its keys, from the file, or from `environment` by name.
    ///
    /// # Errors
    /// What is missing, or readable by others, and what would be right.
    pub fn keys(&self, environment: impl Fn(&str) -> Option<String>) -> Result<Keys, String> {
        let Some(file) = &self.credentials_file else {
            let get = |n: &str| environment(n).filter(|v| !v.is_empty());
            return keys(get).ok_or_else(|| {
                "[registry.s3] has no keys: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in \
                 the environment, or credentials_file"
                    .to_owned()
            });
        };
        let text = private(file)?;
        let get = |name: &str| {
            let of = |l: &str| {
                let (k, v) = l.split_once('=')?;
                (k.trim().eq_ignore_ascii_case(name)).then(|| v.trim().to_owned())
            };
            text.lines().find_map(of).filter(|v| !v.is_empty())
        };
        keys(get).ok_or_else(|| {
            format!(
                "{}: it must have the lines aws_access_key_id = … and aws_secret_access_key = …",
                file.display()
            )
        })
    }

    /// For people: where images are.
    pub fn describe(&self) -> String {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        let at = self.endpoint.as_deref().unwrap_or("Amazon");
        format!("s3://{}{slash}{} at {at}, region {}", self.bucket, self.prefix, self.region)
    }
}

fn keys(get: impl Fn(&str) -> Option<String>) -> Option<Keys> {
    Some(Keys {
        id: Secret::new(get("AWS_ACCESS_KEY_ID")?),
        secret: Secret::new(get("AWS_SECRET_ACCESS_KEY")?),
        session: get("AWS_SESSION_TOKEN").map(Secret::new),
    })
}

/// The content of a file that only its owner may read.
///
/// # Errors
/// What is wrong with it, and what mends it.
pub fn private(file: &Path) -> Result<String, String> {
    let wrong = |e: std::io::Error| format!("{}: {e}", file.display());
    let mode = std::fs::metadata(file).map_err(wrong)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!(
            "{}: mode {mode:04o} lets others read it: chmod 0600 {}",
            file.display(),
            file.display()
        ));
    }
    std::fs::read_to_string(file).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::super::deployment::parse;
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn read(text: &str) -> Result<S3, String> {
        let c = parse(text, "f", Path::new("/etc/provision")).map_err(|e| e.to_string())?;
        Ok(c.s3.unwrap())
    }

    #[test]
    fn a_bucket_and_an_endpoint_are_enough() {
        let s = read("[registry.s3]\nbucket = \"images\"\nendpoint = \"http://10.0.0.1:9000/\"\n");
        let s = s.unwrap();
        assert_eq!(s.describe(), "s3://images at http://10.0.0.1:9000, region us-east-1");
        let none = s.keys(|_| None).unwrap_err();
        assert!(none.contains("AWS_SECRET_ACCESS_KEY"), "{none}");
        let keys = s.keys(|n| Some(format!("of {n}"))).unwrap();
        assert_eq!(keys.id.expose(), "of AWS_ACCESS_KEY_ID");
    }

    #[test]
    fn faults_name_the_line_and_what_would_be_right() {
        let f = |t: &str| read(&format!("[registry.s3]\n{t}")).unwrap_err();
        assert!(f("bucket = \"Big One\"").contains("f:2: bucket"));
        assert!(f("bucket = \"abc\"\nendpoint = \"s3.net\"").contains("f:3: endpoint"));
        assert!(f("bucket = \"abc\"\nprefix = \"../x\"").contains("f:3: prefix"));
        assert!(f("bucket = \"abc\"\nendpint = \"x\"").contains("did you mean `endpoint`"));
        assert!(f("bucket = \"abc\"\n[registry]\nstorage = \"x\"").contains("f:"));
        let both =
            read("[registry]\nstorage = \"x\"\n[registry.s3]\nbucket = \"abc\"").unwrap_err();
        assert!(both.contains("f:2:") && both.contains("one of the two"), "{both}");
    }

    #[test]
    fn a_file_of_keys_is_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keys");
        std::fs::write(&file, "[default]\naws_access_key_id = A\naws_secret_access_key=B=\n")
            .unwrap();
        let mut s = read("[registry.s3]\nbucket = \"images\"\n").unwrap();
        s.credentials_file = Some(file.clone());
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(s.keys(|_| None).unwrap_err().contains("chmod 0600"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let keys = s.keys(|_| None).unwrap();
        assert_eq!((keys.id.expose(), keys.secret.expose()), ("A", "B="));
        assert!(!format!("{keys:?}").contains('B'));
    }
}
