//! apt, in a place of its own: its lists, its cache, no packages installed. It
//! checks what the archive signed, with the host's keys, proxies and
//! certificates; nothing of the host is changed.

use super::build::{BuildError, Progress};
use super::child::{self, ChildError, clean_environment};
use super::publish::file_entry;
use super::sources::Source;
use crate::archive::Package;
use crate::model::Digest;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Files asked for in one call: a command line has an end.
const AT_ONCE: usize = 100;

/// See the module.
#[derive(Debug)]
pub struct Apt {
    root: PathBuf,
    /// Packages by digest, kept between runs.
    pool: PathBuf,
    /// Where files of an archive are that came through the package cache:
    /// address of the archive there, directory.
    shared: Vec<(String, PathBuf)>,
}

/// The directories of archives in the package cache: `through` says how they
/// are called there, `files` is where it keeps them.
pub fn shared(through: &[(String, String)], files: Option<&Path>) -> Vec<(String, PathBuf)> {
    let Some(files) = files else { return Vec::new() };
    let named = |here: &String| Some((here.clone(), files.join(here.rsplit('/').next()?)));
    through.iter().filter_map(|(_, here)| named(here)).collect()
}

impl Apt {
    /// A new place in `root`, with these sources; packages are kept in `pool`.
    ///
    /// # Errors
    /// A directory or file cannot be written.
    pub fn new(root: &Path, pool: &Path, sources: &[Source]) -> Result<Self, BuildError> {
        for dir in [&root.join("lists/partial"), &root.join("archives/partial"), pool] {
            fs::create_dir_all(dir).map_err(BuildError::io(dir))?;
        }
        let write = |name: &str, text: &str| {
            let path = root.join(name);
            fs::write(&path, text).map_err(BuildError::io(&path))
        };
        write("status", "")?;
        let lines: Vec<String> = sources.iter().map(Source::line).collect();
        write("sources.list", &lines.join("\n"))?;
        write("apt.conf", &configuration(root, sources)?)?;
        Ok(Self { root: root.to_owned(), pool: pool.to_owned(), shared: Vec::new() })
    }

    /// Files that the package cache has are linked and not kept twice.
    pub fn sharing(mut self, shared: Vec<(String, PathBuf)>) -> Self {
        self.shared = shared;
        self
    }

    /// Links what the package cache has of this package to its place in the
    /// pool. On another file system, or none: it stays as it is.
    fn share(&self, uri: &str, p: &Package) {
        let Some((_, dir)) = self.shared.iter().find(|(at, _)| at == uri) else { return };
        let new = self.pool.join(format!(".{}", p.sha256.to_hex()));
        let _ = fs::remove_file(&new);
        let theirs = dir.join(&p.filename);
        let good =
            |path: &Path| file_entry(path).is_ok_and(|e| e.sha256 == p.sha256 && e.size == p.size);
        if good(&theirs) && fs::hard_link(&theirs, &new).is_ok() {
            // Of the same content, whatever was there.
            let _ = fs::rename(&new, self.path(p));
        }
        let _ = fs::remove_file(&new);
    }

    /// A command of apt's that works in this place.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        clean_environment(&mut command);
        command.env("APT_CONFIG", self.root.join("apt.conf"));
        command
    }

    /// Fetches the indices and checks their signatures.
    ///
    /// # Errors
    /// They cannot be had, or are not signed by a key that the host knows.
    pub fn update(&self, progress: &mut dyn Progress) -> Result<(), BuildError> {
        let mut command = self.command("apt-get");
        command.args(["update", "-q", "--error-on=any"]);
        Ok(child::run("fetching the archive's index (apt-get update)", command, progress)?)
    }

    /// The list whose name ends so, such as
    /// `_dists_trixie_main_binary-amd64_Packages`.
    pub fn list(&self, end: &str) -> Option<PathBuf> {
        self.lists(end).into_iter().next()
    }

    /// All lists whose names end so, sorted.
    pub fn lists(&self, end: &str) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.root.join("lists")) else { return Vec::new() };
        let mut all: Vec<PathBuf> = entries
            .filter_map(Result::ok)
            .filter(|e| e.file_name().to_str().is_some_and(|n| n.ends_with(end)))
            .map(|e| e.path())
            .collect();
        all.sort();
        all
    }

    /// Where a package is, once it was fetched.
    pub fn path(&self, p: &Package) -> PathBuf {
        self.pool.join(p.sha256.to_hex())
    }

    /// Fetches packages from the archive at `uri`, each checked against the
    /// digest in the index. Those that the archive says it does not have are
    /// returned.
    ///
    /// # Errors
    /// The archive cannot be reached, or sends something else.
    pub fn fetch<'p>(
        &self,
        uri: &str,
        packages: &[&'p Package],
        progress: &mut dyn Progress,
    ) -> Result<Vec<&'p Package>, BuildError> {
        let total: u64 = packages.iter().map(|p| p.size).sum();
        let mut done = 0;
        let mut missing = Vec::new();
        for some in packages.chunks(AT_ONCE) {
            progress.bytes(done, total);
            let absent: Vec<&&Package> = some.iter().filter(|p| !self.has(p)).collect();
            absent.iter().for_each(|p| self.share(uri, p));
            let absent: Vec<&&Package> = absent.into_iter().filter(|p| !self.has(p)).collect();
            if !absent.is_empty() {
                self.download(uri, &absent, progress)?;
                absent.iter().for_each(|p| self.share(uri, p));
            }
            missing.extend(absent.into_iter().filter(|p| !self.has(p)));
            done += some.iter().map(|p| p.size).sum::<u64>();
        }
        progress.bytes(done, total);
        Ok(missing)
    }

    /// Whether the file is there and what the index says.
    fn has(&self, p: &Package) -> bool {
        let path = self.path(p);
        let good = file_entry(&path).is_ok_and(|e| e.sha256 == p.sha256 && e.size == p.size);
        if !good {
            // Half of a file, or a damaged one.
            let _ = fs::remove_file(&path);
        }
        good
    }

    fn download(
        &self,
        uri: &str,
        packages: &[&&Package],
        progress: &mut dyn Progress,
    ) -> Result<(), BuildError> {
        let mut command = self.command("/usr/lib/apt/apt-helper");
        command.arg("download-file");
        for p in packages {
            command.arg(format!("{uri}/{}", p.filename)).arg(self.path(p));
            command.arg(format!("SHA256:{}", p.sha256.to_hex()));
        }
        unless_absent("fetching packages", command, progress)
    }

    /// Fetches one file to `to`, which must have this digest; `false` when the
    /// archive says that it does not have it.
    ///
    /// # Errors
    /// The archive cannot be reached, or sends something else.
    pub fn fetch_file(
        &self,
        url: &str,
        to: &Path,
        digest: Digest,
        progress: &mut dyn Progress,
    ) -> Result<bool, BuildError> {
        let mut command = self.command("/usr/lib/apt/apt-helper");
        command.args(["download-file", url]).arg(to);
        command.arg(format!("SHA256:{}", digest.to_hex()));
        unless_absent("fetching a list of digests", command, progress)?;
        Ok(to.exists() && file_entry(to)?.sha256 == digest)
    }
}

/// Runs what fetches; that the archive does not have something is no error.
fn unless_absent(
    what: &str,
    command: Command,
    progress: &mut dyn Progress,
) -> Result<(), BuildError> {
    let mut listening = Faults { progress, other: Vec::new(), absent: false };
    match child::run(what, command, &mut listening) {
        Err(ChildError::Failed { .. }) if listening.absent && listening.other.is_empty() => Ok(()),
        other => Ok(other?),
    }
}

/// Tells "the archive does not have it" from all else that goes wrong.
struct Faults<'a> {
    progress: &'a mut dyn Progress,
    other: Vec<String>,
    absent: bool,
}

impl Progress for Faults<'_> {
    fn step(&mut self, what: &str) {
        self.progress.step(what);
    }
    fn bytes(&mut self, done: u64, total: u64) {
        self.progress.bytes(done, total);
    }
    fn log(&mut self, line: &str) {
        if line.starts_with("E: Failed to fetch") {
            // Of HTTP, and of `file:`.
            if line.contains("  404  ") || line.contains("File not found") {
                self.absent = true;
            } else {
                self.other.push(line.to_owned());
            }
        }
        self.progress.log(line);
    }
    fn cancelled(&self) -> bool {
        self.progress.cancelled()
    }
}

/// The host's settings for fetching, and nothing else of the host.
fn configuration(root: &Path, sources: &[Source]) -> Result<String, BuildError> {
    let mut command = Command::new("apt-config");
    clean_environment(&mut command);
    let dump = command.arg("dump").output().map_err(BuildError::io(Path::new("apt-config")))?;
    let host = String::from_utf8_lossy(&dump.stdout);
    // Indices that other programs of the host ask for have no place here.
    let wanted = |l: &&str| l.starts_with("Acquire::") && !l.contains("::IndexTargets");
    let mut out: String = host.lines().filter(wanted).map(|l| format!("{l}\n")).collect();
    // Its own user could not read a place that is only ours.
    out.push_str(&format!(
        "Dir::Etc::main \"/dev/null\";\nDir::Etc::parts \"/dev/null\";\n\
         Dir::Etc::sourceparts \"/dev/null\";\nDir::Etc::preferencesparts \"/dev/null\";\n\
         Dir::Etc::sourcelist \"{0}/sources.list\";\nDir::State \"{0}\";\n\
         Dir::State::lists \"{0}/lists\";\nDir::State::status \"{0}/status\";\n\
         Dir::Cache \"{0}\";\nDir::Log \"{0}\";\nAPT::Architecture \"amd64\";\n\
         #clear APT::Architectures;\nAPT::Architectures {{ \"amd64\"; }};\n\
         APT::Install-Recommends \"false\";\nAPT::Sandbox::User \"root\";\n\
         Acquire::GzipIndexes \"false\";\nAcquire::Languages \"none\";\n\
         Acquire::Retries \"3\";\n",
        root.display()
    ));
    // A proxy is for what is outside; an address in numbers is that of a cache
    // here, ours.
    for s in sources {
        let rest = s.uri.split_once("://").map_or("", |(_, rest)| rest);
        let host = rest.split(['/', ':']).next().unwrap_or_default();
        if host.parse::<std::net::Ipv4Addr>().is_ok() {
            out.push_str(&format!("Acquire::http::Proxy::{host} \"DIRECT\";\n"));
        }
    }
    Ok(out)
}
