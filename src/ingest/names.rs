//! Names of images: the OCI grammar for what we write, and where in our own
//! registry an image is looked for that a Dockerfile names.

use crate::model::Invalid;

/// Folder of our registry with base images.
pub const BASE: &str = "base";
/// Folder of our registry with what was built, before it is promoted.
pub const STAGING: &str = "staging";

/// Longest repository name, in bytes.
const LONGEST: usize = 255;

/// Checks a repository name (Distribution Specification 1.1, "Pulling
/// manifests"), at most 255 bytes.
pub fn repository(name: &str) -> Result<&str, Invalid> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let component = |c: &str| {
        let b = c.as_bytes();
        b.first().is_some_and(|x| plain(*x))
            && b.last().is_some_and(|x| plain(*x))
            && b.split(|x| plain(*x)).all(|sep| {
                matches!(sep, b"" | b"." | b"_" | b"__") || sep.iter().all(|x| *x == b'-')
            })
    };
    if name.len() <= LONGEST && name.split('/').all(component) {
        return Ok(name);
    }
    Err(Invalid::new(
        "image name",
        name,
        "lower-case letters and digits, joined by '.', '_', '__' or '-', in parts separated by '/', at most 255 characters",
    ))
}

/// Checks a tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
pub fn tag(tag: &str) -> Result<&str, Invalid> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let b = tag.as_bytes();
    let good = b.len() <= 128
        && b.first().is_some_and(|x| word(*x))
        && b.iter().all(|x| word(*x) || matches!(x, b'.' | b'-'));
    if good {
        return Ok(tag);
    }
    Err(Invalid::new(
        "tag",
        tag,
        "a letter, digit or '_', then at most 127 letters, digits, '_', '.' or '-'",
    ))
}

/// A name made from the name of a folder or of a repository: what the grammar
/// does not allow becomes a dash.
pub fn from_folder(folder: &str) -> Option<String> {
    let mut out = String::new();
    for c in folder.to_lowercase().chars() {
        match c {
            'a'..='z' | '0'..='9' => out.push(c),
            _ if out.is_empty() || out.ends_with('-') => {}
            _ => out.push('-'),
        }
    }
    out.truncate(128);
    let name = out.trim_end_matches('-');
    repository(name).ok().map(str::to_owned)
}

/// Where a Dockerfile's image is in our registry: `REPOSITORY:TAG` or
/// `REPOSITORY@DIGEST`.
///
/// `debian:12` and `docker.io/library/debian:12` are `base/debian:12`;
/// `OUR-HOST/x:1` is `x:1`; `quay.example/x:1` is `base/quay.example/x:1`.
/// `hosts` are the names, with port where there is one, by which our registry
/// is known.
pub fn in_our_registry(name: &str, hosts: &[String]) -> Result<String, Invalid> {
    let wrong =
        || Invalid::new("base image", name, "NAME:TAG, such as debian:12, or a name with our host");
    let (path, digest) = match name.split_once('@') {
        Some((path, digest)) => {
            let digest: crate::model::Digest = digest.parse()?;
            (path, Some(digest))
        }
        None => (name, None),
    };
    // A colon before a slash belongs to the host.
    let (path, version) = match path.rsplit_once(':') {
        Some((p, t)) if !t.contains('/') => (p, tag(t)?),
        _ => (path, "latest"),
    };
    let (host, rest) = match path.split_once('/') {
        Some((h, r)) if h.contains(['.', ':']) || h == "localhost" => (Some(h), r),
        _ => (None, path),
    };
    let place = match host {
        Some(h) if hosts.iter().any(|o| o.eq_ignore_ascii_case(h)) => rest.to_owned(),
        None | Some("docker.io" | "index.docker.io" | "registry-1.docker.io") => {
            format!("{BASE}/{}", rest.strip_prefix("library/").unwrap_or(rest))
        }
        Some(h) => format!("{BASE}/{}/{rest}", h.to_ascii_lowercase().replace(':', "_")),
    };
    repository(&place).map_err(|_| wrong())?;
    Ok(match digest {
        Some(d) => format!("{place}@{d}"),
        None => format!("{place}:{version}"),
    })
}

/// What to say when [`in_our_registry`] is not there.
pub fn missing(name: &str) -> String {
    let plain = name.strip_prefix("docker.io/").unwrap_or(name);
    let plain = plain.strip_prefix("library/").unwrap_or(plain);
    let make = if super::debian::Release::of(plain).is_some() {
        format!(
            "make it with 'provision base build {plain}', or take one with 'provision base import'"
        )
    } else {
        "take one with 'provision base import'".to_owned()
    };
    format!("base image {name} is not in this registry; {make}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_image_is_looked_for_in_our_own_registry_only() {
        let hosts = ["reg.lab:5000".to_owned(), "localhost:5000".to_owned()];
        let hex = "a".repeat(64);
        for (name, want) in [
            ("debian:12", "base/debian:12"),
            ("debian", "base/debian:latest"),
            ("library/debian:12", "base/debian:12"),
            ("docker.io/library/debian:12", "base/debian:12"),
            ("docker.io/me/app", "base/me/app:latest"),
            ("me/app:1", "base/me/app:1"),
            ("reg.lab:5000/x/y:z", "x/y:z"),
            ("REG.lab:5000/x", "x:latest"),
            ("localhost:5000/base/debian:12", "base/debian:12"),
            ("quay.example/x/y:1", "base/quay.example/x/y:1"),
            ("other:5000/x", "base/other_5000/x:latest"),
        ] {
            assert_eq!(in_our_registry(name, &hosts).unwrap(), want, "{name}");
        }
        let exact = format!("debian:12@sha256:{hex}");
        assert_eq!(in_our_registry(&exact, &hosts).unwrap(), format!("base/debian@sha256:{hex}"));
    }

    #[test]
    fn other_ways_to_name_an_image_are_refused() {
        for bad in [
            "",
            ":1",
            "oci:/etc",
            "dir:/etc/x",
            "docker-archive:/x.tar",
            "docker://x/y",
            "/etc",
            "../x",
            "a@sha256:12",
            "a:b:c",
            "Debian",
            "a:..",
            "x y",
            "-f",
        ] {
            assert!(in_our_registry(bad, &[]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_missing_base_says_how_to_get_it() {
        assert_eq!(
            missing("docker.io/library/debian:12"),
            "base image docker.io/library/debian:12 is not in this registry; make it with \
             'provision base build debian:12', or take one with 'provision base import'"
        );
        assert!(!missing("alpine:3").contains("base build"));
    }

    #[test]
    fn a_folder_gives_a_name() {
        for (folder, want) in
            [("My App", "my-app"), ("_x..y_", "x-y"), ("web", "web"), ("a--b", "a-b")]
        {
            assert_eq!(from_folder(folder).as_deref(), Some(want));
        }
        assert_eq!(from_folder("___"), None);
    }

    proptest! {
        #[test]
        fn what_comes_out_is_by_the_grammar(name in "\\PC{0,40}") {
            if let Some(n) = from_folder(&name) { prop_assert!(repository(&n).is_ok()); }
            if let Ok(r) = in_our_registry(&name, &[]) {
                let end = r.find(['@', ':']).unwrap();
                prop_assert!(repository(&r[..end]).is_ok(), "{}", r);
                prop_assert!(r.starts_with("base/"));
            }
        }
    }
}
