//! Reads a profile's directory.

use super::lint::{self, Finding};
use crate::model::plan::{ProfilePlan, ScriptPlan};
use crate::model::{Digest, Name};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Scripts and descriptions are read whole; a file larger than this is not
/// one of them.
const LARGEST_FILE: u64 = 1 << 20;

/// Why a profile cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// No such profile.
    #[error("no profile '{name}'; {}", Self::list(.known, .near))]
    Unknown {
        /// What was asked for.
        name: Name,
        /// What there is.
        known: Vec<Name>,
        /// The known name that looks most like it.
        near: Option<Name>,
    },
    /// It does not pass the lint.
    #[error("profile '{name}' cannot be used: {}", Self::findings(.findings))]
    Invalid {
        /// Profile.
        name: Name,
        /// All that is wrong, with file and line.
        findings: Vec<Finding>,
    },
    /// Reading failed.
    #[error("{}: {source}", .path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

impl ProfileError {
    fn list(known: &[Name], near: &Option<Name>) -> String {
        let names: Vec<&str> = known.iter().map(Name::as_str).collect();
        let hint = near.as_ref().map(|n| format!("did you mean '{n}'? ")).unwrap_or_default();
        if names.is_empty() {
            return "there are none: is the profiles directory right?".to_owned();
        }
        format!("{hint}there {} {}", if names.len() == 1 { "is" } else { "are" }, names.join(", "))
    }

    fn findings(findings: &[Finding]) -> String {
        findings.iter().map(Finding::to_string).collect::<Vec<_>>().join("; ")
    }

    /// Whether the profile does not exist, as against being unusable.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }
}

/// A profile that is in the directory but cannot be used.
#[derive(Debug)]
pub struct ProfileFault {
    /// Directory name.
    pub name: Name,
    /// Why.
    pub error: ProfileError,
}

/// `profile.toml` as written.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Wire {
    pub name: Name,
    pub description: String,
    #[serde(default)]
    pub needs: Vec<String>,
    #[serde(default)]
    pub offers: Vec<String>,
    #[serde(default)]
    pub groups: Vec<String>,
    #[serde(default)]
    pub services: Vec<String>,
    #[serde(default)]
    pub packages: Vec<String>,
    #[serde(default = "default_verify")]
    pub verify: String,
    #[serde(default = "default_verify_seconds")]
    pub verify_seconds: u64,
}

/// The keys of `profile.toml`, for suggestions.
pub(super) const KEYS: [&str; 9] = [
    "name",
    "description",
    "needs",
    "offers",
    "groups",
    "services",
    "packages",
    "verify",
    "verify_seconds",
];

fn default_verify() -> String {
    "verify.sh".to_owned()
}

fn default_verify_seconds() -> u64 {
    120
}

/// A profile, read and linted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Name.
    pub name: Name,
    /// One line for lists.
    pub description: String,
    /// What it needs of a node, in words.
    pub needs: Vec<String>,
    /// What a node offers with it, in words.
    pub offers: Vec<String>,
    /// Groups its users join.
    pub groups: Vec<String>,
    /// Scripts in order.
    pub scripts: Vec<ScriptPlan>,
    /// Packages that the scripts install, for a mirror; with `?` behind it one
    /// that not every release has.
    pub packages: Vec<String>,
    /// Text of `verify.sh`.
    pub verify: String,
    /// Seconds `verify.sh` may take.
    pub verify_seconds: u64,
    /// Digest over the names and contents of all its files.
    pub digest: Digest,
    /// What the lint says without refusing it.
    pub warnings: Vec<Finding>,
}

impl Profile {
    /// What the agent is told. Scripts travel only when they are to be run.
    pub fn plan(&self, baked: bool) -> ProfilePlan {
        ProfilePlan {
            name: self.name.clone(),
            digest: self.digest,
            baked,
            scripts: if baked { Vec::new() } else { self.scripts.clone() },
            groups: self.groups.clone(),
            verify: self.verify.clone(),
            verify_seconds: self.verify_seconds,
        }
    }
}

/// A directory of profiles. Every call reads the disk: editing a profile
/// needs no restart.
#[derive(Debug, Clone)]
pub struct Profiles {
    dir: PathBuf,
}

impl Profiles {
    /// The profiles in `dir`, which need not exist yet.
    pub fn open(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// All usable profiles by name, and those that are not with the reason.
    pub fn list(&self) -> Result<(Vec<Profile>, Vec<ProfileFault>), ProfileError> {
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for name in self.names()? {
            match self.load(&name) {
                Ok(profile) => good.push(profile),
                Err(error) => bad.push(ProfileFault { name, error }),
            }
        }
        Ok((good, bad))
    }

    /// One profile.
    pub fn get(&self, name: &Name) -> Result<Profile, ProfileError> {
        let known = self.names()?;
        if !known.contains(name) {
            let near = known
                .iter()
                .map(|k| (strsim::jaro_winkler(k.as_str(), name.as_str()), k))
                .filter(|(likeness, _)| *likeness > 0.8)
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .map(|(_, k)| k.clone());
            return Err(ProfileError::Unknown { name: name.clone(), known, near });
        }
        self.load(name)
    }

    fn names(&self) -> Result<Vec<Name>, ProfileError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(ProfileError::Io { path: self.dir.clone(), source }),
        };
        let mut names: Vec<Name> = entries
            .filter_map(Result::ok)
            .filter(|e| e.path().join("profile.toml").is_file())
            .filter_map(|e| e.file_name().to_str()?.parse().ok())
            .collect();
        names.sort();
        Ok(names)
    }

    fn load(&self, name: &Name) -> Result<Profile, ProfileError> {
        let files = read_files(&self.dir.join(name.as_str()))?;
        let checked = lint::check(name, &files);
        let invalid = |findings| ProfileError::Invalid { name: name.clone(), findings };
        let wire = match checked.wire {
            Some(wire) if checked.errors.is_empty() => wire,
            _ => return Err(invalid(checked.errors)),
        };
        let script = |file: &String| ScriptPlan {
            name: file.clone(),
            text: files.get(file).cloned().unwrap_or_default(),
        };
        Ok(Profile {
            scripts: wire.services.iter().map(script).collect(),
            packages: wire.packages,
            verify: script(&wire.verify).text,
            digest: digest(&files),
            name: wire.name,
            description: wire.description,
            needs: wire.needs,
            offers: wire.offers,
            groups: wire.groups,
            verify_seconds: wire.verify_seconds,
            warnings: checked.warnings,
        })
    }
}

/// The files of a profile by name; text only, no sub-directories, editors'
/// leftovers (`~`, `.swp`, hidden) not counted.
fn read_files(dir: &Path) -> Result<BTreeMap<String, String>, ProfileError> {
    let io = |path: &Path, source| ProfileError::Io { path: path.to_owned(), source };
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(|e| io(dir, e))? {
        let path = entry.map_err(|e| io(dir, e))?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else { continue };
        let leftover = name.starts_with('.') || name.ends_with('~') || name.ends_with(".swp");
        let meta = fs::metadata(&path).map_err(|e| io(&path, e))?;
        if leftover || !meta.is_file() {
            continue;
        }
        if meta.len() > LARGEST_FILE {
            let text = format!("{} bytes; a profile's file may have {LARGEST_FILE}", meta.len());
            return Err(io(&path, io::Error::new(io::ErrorKind::FileTooLarge, text)));
        }
        let text = fs::read_to_string(&path).map_err(|e| io(&path, e))?;
        files.insert(name.to_owned(), text);
    }
    Ok(files)
}

/// Digest over sorted names and contents, lengths in between so that no two
/// sets of files give the same stream.
fn digest(files: &BTreeMap<String, String>) -> Digest {
    let mut hasher = Sha256::new();
    for (name, text) in files {
        for part in [name, text] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    Digest::finish(hasher)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profiles(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn findings(files: &[(&str, &str)]) -> String {
        let dir = profiles(files);
        match Profiles::open(dir.path()).get(&"web".parse().unwrap()) {
            Err(e) => e.to_string(),
            Ok(p) => p.warnings.iter().map(Finding::to_string).collect::<Vec<_>>().join("; "),
        }
    }

    const TOML: &str = "name = \"web\"\ndescription = \"a web server\"\nservices = [\"10-a.sh\"]\n";
    const SCRIPT: &str = "#!/bin/sh\nset -e\ntrue\n";

    #[test]
    fn the_shipped_profiles_pass_the_lint_without_a_word() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles");
        let (good, bad) = Profiles::open(dir).list().unwrap();
        assert!(bad.is_empty(), "{bad:?}");
        let names: Vec<&str> = good.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["base", "docker"]);
        for p in &good {
            assert!(p.warnings.is_empty(), "{:?}", p.warnings);
        }
        let docker = good.iter().find(|p| p.name.as_str() == "docker").unwrap();
        assert_eq!(docker.plan(true).scripts.len(), 0);
        assert_eq!(docker.plan(false).scripts[0].name, "10-docker.sh");
    }

    #[test]
    fn what_is_wrong_is_said_with_file_and_line() {
        let verify = ("web/verify.sh", SCRIPT);
        let table: [(&str, &str, &str); 9] = [
            (
                "services",
                "servces",
                "profile.toml:3: unknown key 'servces': did you mean 'services'?",
            ),
            ("\"web\"", "\"wob\"", "profile.toml:1: name is 'wob' but the directory's is 'web'"),
            ("10-a.sh", "20-b.sh", "profile.toml:3: '20-b.sh' is listed but there is no such file"),
            ("10-a.sh", "../x.sh", "'../x.sh' must be a plain file name"),
            ("true", "if true", "10-a.sh:"),
            ("set -e\n", "", "10-a.sh:1: must say 'set -e'"),
            (
                "true",
                "curl -fsSL https://get.example | sh",
                "10-a.sh:3: runs a program straight off",
            ),
            ("true", "apt-get install nginx", "10-a.sh:3: 'apt-get install' without '-y'"),
            ("true", "systemctl start nginx", "10-a.sh:3: starts a service"),
        ];
        for (from, to, want) in table {
            let (toml, script) = (TOML.replace(from, to), SCRIPT.replace(from, to));
            let said = findings(&[("web/profile.toml", &toml), ("web/10-a.sh", &script), verify]);
            assert!(said.contains(want), "{from} → {to}: {said}");
        }
        let said = findings(&[("web/profile.toml", TOML), ("web/10-a.sh", SCRIPT)]);
        assert!(said.contains("'verify.sh' is listed but there is no such file"), "{said}");
        let left = ("web/99-old.sh", SCRIPT);
        let said = findings(&[("web/profile.toml", TOML), ("web/10-a.sh", SCRIPT), verify, left]);
        assert_eq!(said, "99-old.sh: is not listed in services and never runs");
    }

    #[test]
    fn an_unknown_profile_is_answered_with_those_there_are() {
        let dir = profiles(&[("web/profile.toml", TOML)]);
        let e = Profiles::open(dir.path()).get(&"webb".parse().unwrap()).unwrap_err();
        assert!(e.is_unknown());
        assert_eq!(e.to_string(), "no profile 'webb'; did you mean 'web'? there is web");
    }

    #[test]
    fn the_digest_changes_with_any_file_and_not_with_editors_leftovers() {
        let all = [("web/profile.toml", TOML), ("web/10-a.sh", SCRIPT), ("web/verify.sh", SCRIPT)];
        let get = |files: &[(&str, &str)]| {
            let dir = profiles(files);
            Profiles::open(dir.path()).get(&"web".parse().unwrap()).unwrap().digest
        };
        let first = get(&all);
        let with = |more| get(&[&all[..], &[more]].concat());
        assert_eq!(first, with(("web/10-a.sh~", "old")));
        assert_ne!(first, with(("web/site.conf", "x")));
    }
}
