//! Makes an installer image. Blocking, a minute or two, like `build`.
//!
//! Order: index, its signature checked → netboot package, or files → kernel and ramdisk →
//! components, each fetched and checked → those missing made here → a suite of
//! our own → publish.

use super::components::{Choice, DISPENSABLE, choose};
use super::digests::Signed;
use super::files::{self, Files};
use super::ramdisk::{self, Ramdisk};
use super::repack::{Bench, Made};
use super::suite::{self, OWN_KEY};
use super::ubuntu;
use crate::archive::deb::{self, Entry};
use crate::archive::{Index, Package, SigningKey};
use crate::image::apt::{self, Apt};
use crate::image::build::{BuildError, Progress, release_date, write};
use crate::image::catalogue::{Catalogue, Image};
use crate::image::description::{
    Description, FORMAT, FileEntry, Installer, Method, Provenance, Repacked,
};
use crate::image::publish::{self, Workplace, file_entry};
use crate::image::recipe::{self, Recipe};
use crate::image::sources::{self, Source};
use crate::model::{Arch, Digest, Name};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// What to add.
#[derive(Debug, Clone)]
pub struct AddRequest {
    /// Name of the image.
    pub name: Name,
    /// Release, such as `debian-13`; see [`recipe::installer`].
    pub release: String,
    /// Archives; else those of the host's own apt configuration.
    pub sources: Option<Vec<Source>>,
    /// Archives that are fetched through another address: theirs, that one.
    pub through: Vec<(String, String)>,
    /// The catalogue's directory.
    pub images: PathBuf,
    /// Packages downloaded before; may be removed at any time.
    pub cache: PathBuf,
    /// Where the package cache of this host keeps its files.
    pub cache_files: Option<PathBuf>,
    /// Our key for archives; made if there is none.
    pub key: PathBuf,
    /// Whether missing components are made from ordinary packages.
    pub repack: bool,
    /// Kernel and ramdisk in place of those of the distribution's package.
    pub files: Option<Files>,
    /// A directory laid out as `/lib/firmware`, for the installer's kernel.
    pub firmware: Option<PathBuf>,
}

/// Fills a ramdisk up to a multiple of 512 bytes with zeros, which the kernel
/// skips: another one may be laid behind it, and begins at a multiple of 4.
pub(super) fn pad(ramdisk: &Path) -> std::io::Result<()> {
    let file = fs::OpenOptions::new().write(true).open(ramdisk)?;
    let length = file.metadata()?.len();
    file.set_len(length.next_multiple_of(512))
}

/// Adds the installer of a release.
///
/// # Errors
/// See [`BuildError`]; what was there before is untouched.
pub fn add_installer(
    request: &AddRequest,
    progress: &mut dyn Progress,
) -> Result<Image, BuildError> {
    let recipe = recipe::installer(&request.release)
        .ok_or_else(|| BuildError::Installer(request.release.clone()))?;
    not_another_kind(request)?;
    // What is mistyped is said before anything is fetched.
    let firmware = request.firmware.clone().map(Files::Dir);
    for files in [&request.files, &firmware].into_iter().flatten() {
        files.check()?;
    }
    if recipe.os == recipe::UBUNTU {
        return ubuntu::add(request, recipe, progress);
    }
    let key = SigningKey::open(&request.key)?;
    let work = Workplace::open(&request.images, &request.name)?;
    let (source, origin) = source(request, recipe)?;

    progress.step("index of the archive");
    let listed = Source {
        components: vec!["main".to_owned(), "main/debian-installer".to_owned()],
        ..source.clone()
    };
    let apt = Apt::new(&work.path().join("apt"), &request.cache.join("pool"), &[listed])?
        .sharing(apt::shared(&request.through, request.cache_files.as_deref()));
    apt.update(progress)?;
    let lists = Lists::read(&apt, recipe)?;

    progress.step("kernel and ramdisk");
    let out = work.path().join("image");
    fs::create_dir(&out).map_err(BuildError::io(&out))?;
    let (netboot, version, from_files) = match &request.files {
        None => {
            let p = netboot(&apt, &source, &lists, recipe, &out, progress)?;
            (format!("{} {}", p.name, p.version), p.version.clone(), Vec::new())
        }
        Some(files) => {
            let at = (source.uri.as_str(), recipe.suite);
            let signed = Signed::fetch(&apt, at, &lists.release, work.path(), progress)?;
            let taken = files.take((work.path(), &out), files::DEBIAN, &signed, progress)?;
            let version = taken.version.unwrap_or_else(|| "of unknown version".to_owned());
            (format!("files {version}"), version, taken.unchecked)
        }
    };
    let ramdisk = out.join("ramdisk");
    pad(&ramdisk).map_err(BuildError::io(&ramdisk))?;
    let ramdisk = ramdisk::read(&ramdisk).map_err(BuildError::io(&ramdisk))?;
    // Of two versions, or of another variety: modules would not fit.
    let says = files::kernel_release(&out.join("kernel"));
    if !says.is_empty() && says != ramdisk.kernel {
        let why = format!("is of kernel {says}, and the ramdisk of {}", ramdisk.kernel);
        return Err(BuildError::Files("kernel".into(), why));
    }

    progress.step("installer components");
    let mut choice = choose(&lists.components, &ramdisk);
    let all: Vec<&Package> = choice.packages.values().collect();
    let missing = apt.fetch(&source.uri, &all, progress)?;
    let missing: Vec<Package> = missing.into_iter().cloned().collect();
    let bench = Bench {
        apt: &apt,
        uri: &source.uri,
        components: &lists.components,
        packages: &lists.packages,
        ramdisk: &ramdisk,
        epoch: lists.epoch,
        work: &work.path().join("trees"),
        suite: &out.join("suite"),
    };
    let (made, left_out) = complete(&bench, &choice, &missing, request.repack, progress)?;
    left_out.iter().for_each(|n| choice.leave_out(n));
    let own = out.join("suite");

    progress.step("image");
    let udeb_suite = (!missing.is_empty()).then(|| format!("{}-provision", recipe.suite));
    let index = suite::index(&choice.packages, &made);
    write(&out.join("components"), index.as_bytes())?;
    if let Some(name) = &udeb_suite {
        suite::write(&own, name, lists.epoch, index, &key)?;
    }
    let mut extra = suite::extra(&ramdisk, &key);
    if let Some(dir) = &request.firmware {
        files::firmware(dir, ramdisk.lib, &mut extra)?;
    }
    write(&out.join("extra"), &extra.finish())?;
    write(&out.join(OWN_KEY), &key.public())?;
    let list = component_list(&ramdisk, &choice, &made);
    write(&out.join("packages.txt"), list.as_bytes())?;
    let mut files = BTreeMap::new();
    for file in ["kernel", "ramdisk", "extra", OWN_KEY, "components", "packages.txt"] {
        files.insert(file.to_owned(), file_entry(&out.join(file))?);
    }
    let mut installer = Installer {
        suite: recipe.suite.to_owned(),
        udeb_suite,
        origin,
        netboot,
        release_date: lists.epoch,
        key: key.fingerprint(),
        unchecked: [from_files, unchecked(&choice, &made)].concat(),
        left_out,
        repacked: made.iter().map(|m| (m.package.name.clone(), repacked(m))).collect(),
        files: BTreeMap::new(),
    };
    if own.exists() {
        tree_entries(&out, &own, &mut installer.files)?;
    }
    let description = Description {
        format: FORMAT,
        name: request.name.clone(),
        os: recipe.os.to_owned(),
        release: recipe.release.to_owned(),
        version,
        arch: Arch::X86_64,
        method: Method::Preseed,
        // Those of the installed system: the installer's own are in its boot script.
        kernel_args: String::new(),
        kernel: ramdisk.kernel.clone(),
        rootfs: None,
        installer: Some(installer),
        provenance: Provenance {
            source_date_epoch: lists.epoch,
            suite: recipe.suite.to_owned(),
            components: vec!["main".to_owned()],
            packages: Digest::of(list.as_bytes()),
            package_count: list.lines().count() as u32,
            builder: env!("CARGO_PKG_VERSION").to_owned(),
        },
        files,
    };
    let path = out.join("image.toml");
    write(&path, publish::toml_text(&description, &path)?.as_bytes())?;
    progress.step("publish");
    work.publish(&out, &request.images.join(request.name.as_str()))?;
    Ok(Catalogue::open(&request.images).get(&request.name)?)
}

/// An image of another kind is not overwritten.
fn not_another_kind(request: &AddRequest) -> Result<(), BuildError> {
    match Catalogue::open(&request.images).get(&request.name) {
        Ok(i) if !i.description.method.is_installer() => Err(BuildError::Taken(i.name)),
        _ => Ok(()),
    }
}

/// The archive and suite, and what our cache calls the archive.
fn source(request: &AddRequest, recipe: &Recipe) -> Result<(Source, Option<String>), BuildError> {
    let all = match &request.sources {
        Some(own) => own.clone(),
        None => sources::for_suite(Path::new("/etc/apt"), recipe.suite)?,
    };
    let found = all.into_iter().find(|s| s.suite == recipe.suite);
    let found = found.ok_or(sources::SourcesError::None)?;
    let here = request.through.iter().find(|(there, _)| *there == found.uri);
    let origin = here.and_then(|(_, h)| h.rsplit('/').next()).map(str::to_owned);
    let moved = sources::through(vec![found], &request.through);
    Ok((moved.into_iter().next().ok_or(sources::SourcesError::None)?, origin))
}

/// The archive's indices.
struct Lists {
    components: Index,
    packages: Index,
    epoch: u64,
    /// The text of the archive's signed list.
    release: String,
}

impl Lists {
    fn read(apt: &Apt, recipe: &Recipe) -> Result<Self, BuildError> {
        let list = |end: String| {
            apt.list(&end).ok_or_else(|| BuildError::Release {
                uri: recipe.suite.to_owned(),
                reason: format!("the archive has no index '{}'", end.trim_start_matches('_')),
            })
        };
        let suite = recipe.suite;
        let release = list(format!("_dists_{suite}_InRelease"))
            .or_else(|e| apt.list(&format!("_dists_{suite}_Release")).ok_or(e))?;
        let text = fs::read_to_string(&release).map_err(BuildError::io(&release))?;
        let epoch = release_date(&text).ok_or_else(|| BuildError::Release {
            uri: format!("dists/{suite}/InRelease"),
            reason: "has no date that can be read".to_owned(),
        })?;
        let wanted = |n: &str| {
            n.starts_with("linux-image-")
                || n.starts_with("debian-installer-")
                || ["e2fsprogs", "libext2fs2", "libext2fs2t64", "libcom-err2"].contains(&n)
        };
        let main = format!("_dists_{suite}_main_binary-amd64_Packages");
        let components = format!("_dists_{suite}_main_debian-installer_binary-amd64_Packages");
        Ok(Self {
            components: Index::read(&list(components)?, |_| true)?,
            packages: Index::read(&list(main)?, wanted)?,
            epoch,
            release: text,
        })
    }
}

/// Fetches the netboot package and takes kernel and ramdisk out of it.
fn netboot<'l>(
    apt: &Apt,
    source: &Source,
    lists: &'l Lists,
    recipe: &Recipe,
    out: &Path,
    progress: &mut dyn Progress,
) -> Result<&'l Package, BuildError> {
    let name = format!("debian-installer-{}-netboot-amd64", recipe.release);
    let absent = |reason: &str| BuildError::Netboot(name.clone(), reason.to_owned());
    let package = lists.packages.newest(&name).ok_or_else(|| absent("is not in its index"))?;
    if !apt.fetch(&source.uri, &[package], progress)?.is_empty() {
        return Err(absent("is in its index and cannot be had (404)"));
    }
    let dir = format!(
        "usr/lib/debian-installer/images/{}/amd64/text/debian-installer/amd64",
        recipe.release
    );
    deb::walk(&apt.path(package), |path, entry| {
        let to = match path.strip_prefix(&dir) {
            Some("/linux") => out.join("kernel"),
            Some("/initrd.gz") => out.join("ramdisk"),
            _ => return Ok(()),
        };
        match entry {
            Entry::File(_, from) => io::copy(from, &mut File::create(to)?).map(drop),
            _ => Ok(()),
        }
    })?;
    match out.join("kernel").exists() && out.join("ramdisk").exists() {
        true => Ok(package),
        false => Err(absent("has no linux and initrd.gz where they are expected")),
    }
}

/// Makes the missing components, or says which are missing. Also returns the
/// names of those that are left out.
fn complete(
    bench: &Bench<'_>,
    choice: &Choice,
    missing: &[Package],
    repack: bool,
    progress: &mut dyn Progress,
) -> Result<(Vec<Made>, Vec<String>), BuildError> {
    let needed = choice.unknown.iter().filter(|n| n.contains("partman") || n.contains("-modules"));
    let unknown: Vec<String> = needed.map(|n| format!("{n} (not in the index)")).collect();
    if !unknown.is_empty() {
        return Err(BuildError::Components(unknown));
    }
    if missing.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let names: Vec<String> = missing.iter().map(|p| p.name.clone()).collect();
    if !repack {
        let all = names.join(" ");
        return Err(BuildError::Components(vec![format!("{all} (repacking is switched off)")]));
    }
    progress.step("missing components");
    progress.log(&format!("in the index, not in the archive: {}", names.join(" ")));
    let (less, wanted): (Vec<&Package>, Vec<&Package>) =
        missing.iter().partition(|p| DISPENSABLE.contains(&p.name.as_str()));
    let (made, failed) = bench.make(&wanted, progress)?;
    match failed.is_empty() {
        true => Ok((made, less.into_iter().map(|p| p.name.clone()).collect())),
        false => Err(BuildError::Components(failed)),
    }
}

fn repacked(m: &Made) -> Repacked {
    Repacked {
        version: m.package.version.clone(),
        file: m.package.filename.clone(),
        sha256: m.package.sha256,
        from: m.from.clone(),
    }
}

fn unchecked(choice: &Choice, made: &[Made]) -> Vec<String> {
    let mut all = Vec::new();
    if !made.is_empty() {
        let names: Vec<&str> = made.iter().map(|m| m.package.name.as_str()).collect();
        all.push(format!(
            "made here from the distribution's signed packages and signed by our key, not by \
             the distribution: {}",
            names.join(" ")
        ));
    }
    if !choice.unknown.is_empty() {
        all.push(format!("not in the archive's index: {}", choice.unknown.join(", ")));
    }
    all
}

/// `name version where`, a line each.
fn component_list(ramdisk: &Ramdisk, choice: &Choice, made: &[Made]) -> String {
    let line = |n: &str, v: &str, from: &str| format!("{n} {v} {from}\n");
    let mut all: Vec<String> =
        ramdisk.components.iter().map(|(n, v)| line(n, v, "ramdisk")).collect();
    all.extend(choice.packages.values().map(|p| {
        let own = made.iter().any(|m| m.package.name == p.name);
        line(&p.name, &p.version, if own { "repacked" } else { "archive" })
    }));
    all.sort();
    all.concat()
}

/// Every file below `dir`, by its path below `root`.
fn tree_entries(
    root: &Path,
    dir: &Path,
    to: &mut BTreeMap<String, FileEntry>,
) -> Result<(), BuildError> {
    for entry in fs::read_dir(dir).map_err(BuildError::io(dir))? {
        let path = entry.map_err(BuildError::io(dir))?.path();
        if path.is_dir() {
            tree_entries(root, &path, to)?;
        } else if let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str) {
            to.insert(name.to_owned(), file_entry(&path)?);
        }
    }
    Ok(())
}
