//! Makes an image from the host's package mirror. Blocking, minutes long:
//! called on a thread of its own, tells how it goes, can be cancelled.
//!
//! Order: sources and epoch → tree (mmdebstrap) → kernel and ramdisk → block
//! image → while its chunks are compressed, the profiles are baked → publish.
//! The epoch is the newest date of the archive's own indexes, so that two
//! builds from the same state of the mirror are the same to the last bit.

use super::bake::{self, BakeProfile};
use super::catalogue::{Catalogue, Image, ImageError};
use super::child::{self, ChildError, clean_environment, isolated_script};
use super::description::{Description, FORMAT, FileEntry, Method, Provenance, Rootfs};
use super::pack::pack;
use super::publish::{self, Workplace, file_entry};
use super::ramdisk::{self, RamdiskError};
use super::recipe::{self, FIRMWARE, PACKAGES, PATH_RULES, Recipe};
use super::rootfs::{CLEAN, MKE2FS, package_list};
use super::sources::{self, Source, SourcesError};
use super::{ext4, format::Index};
use crate::archive::ArchiveError;
use crate::model::{Arch, Digest, Name};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// How a build tells what it does.
pub trait Progress {
    /// A step begins.
    fn step(&mut self, what: &str);
    /// Bytes of the step done, and in all.
    fn bytes(&mut self, done: u64, total: u64);
    /// A line of a program's output.
    fn log(&mut self, line: &str);
    /// Asked often; the build ends soon after this has become true.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Tells nobody.
#[derive(Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn step(&mut self, _: &str) {}
    fn bytes(&mut self, _: u64, _: u64) {}
    fn log(&mut self, _: &str) {}
}

/// What to build.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// Name of the image.
    pub name: Name,
    /// Recipe, such as `debian-12`; see [`recipe::RECIPES`].
    pub recipe: String,
    /// A mirror configured by hand; else the host's own apt configuration.
    pub mirror: Option<String>,
    /// Archives that are fetched through another address: theirs, that one.
    pub through: Vec<(String, String)>,
    /// Archive components in place of the mirror's, such as `main`.
    pub components: Option<Vec<String>>,
    /// Packages beside the recipe's.
    pub packages: Vec<String>,
    /// Profiles to bake in the same go.
    pub profiles: Vec<BakeProfile>,
    /// The catalogue's directory; built beside, moved in when complete.
    pub images: PathBuf,
    /// Packages downloaded before; may be removed at any time.
    pub cache: PathBuf,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No such recipe.
    #[error("no recipe '{0}'; there are {known}", known = recipe::RECIPES.map(|r| r.name).join(", "))]
    Recipe(String),
    /// No such installer.
    #[error("no installer of '{0}' is known; there are {known}", known = recipe::installers())]
    Installer(String),
    /// What an installer cannot be added without.
    #[error("'{0}' needs {1}")]
    Needs(String, String),
    /// Another build uses the directory.
    #[error("another image is being built in {}", .0.display())]
    Busy(PathBuf),
    /// No archive.
    #[error(transparent)]
    Sources(#[from] SourcesError),
    /// The archive's index could not be had or has no date.
    #[error("{uri}: {reason}")]
    Release {
        /// Index.
        uri: String,
        /// Why.
        reason: String,
    },
    /// A program failed.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// No ramdisk.
    #[error("ramdisk: {0}")]
    Ramdisk(#[from] RamdiskError),
    /// A file could not be written or read.
    #[error("{}: {source}", .path.display())]
    Io {
        /// File.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The archive cannot be read, or our own part of it not be written.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// No installer in the archive.
    #[error(
        "the archive has no installer: {0} {1}; name another archive in the host's apt \
         configuration, or use files ('provision images add --dir')"
    )]
    Netboot(String, String),
    /// Files that were to be taken, and why they are not.
    #[error("{}: {}", .0.display(), .1)]
    Files(PathBuf, String),
    /// Installer components that an install needs.
    #[error(
        "the archive is not complete, the installer could not run from it; these components \
         cannot be had: {}. Use a complete archive, or another release", .0.join("; ")
    )]
    Components(Vec<String>),
    /// An image of another kind has the name.
    #[error("there is an image '{0}' of another kind: choose another name (--name)")]
    Taken(Name),
    /// The image that was built, or is to be baked, cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl BuildError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

/// Builds the image and the baked variants that are asked for.
pub fn build_image(
    request: &BuildRequest,
    progress: &mut dyn Progress,
) -> Result<Image, BuildError> {
    let recipe =
        recipe::find(&request.recipe).ok_or_else(|| BuildError::Recipe(request.recipe.clone()))?;
    let work = Workplace::open(&request.images, &request.name)?;
    let cache = request.cache.join(recipe.suite);
    fs::create_dir_all(&cache).map_err(BuildError::io(&cache))?;
    let sources = sources_for(request, recipe)?;
    progress.step("sources");
    let epoch = epoch(&sources, work.path(), progress)?;

    progress.step("packages");
    let packages = packages(request, &sources);
    let tree = make_tree(recipe, &packages, &sources, epoch, &work, &cache, progress)?;

    progress.step("kernel and ramdisk");
    let out = work.path().join("image");
    fs::create_dir(&out).map_err(BuildError::io(&out))?;
    let kernel = ramdisk::kernel_release(&tree)?;
    let made = ramdisk::build(&tree, &kernel)?;
    progress.log(&format!(
        "ramdisk: {} modules, {} bytes; not in this kernel: {}",
        made.modules.len(),
        made.bytes.len(),
        made.missing.join(" ")
    ));
    write(&out.join("ramdisk"), &made.bytes)?;
    let vmlinuz = tree.join("boot").join(format!("vmlinuz-{kernel}"));
    fs::copy(&vmlinuz, out.join("kernel")).map_err(BuildError::io(&vmlinuz))?;
    let status = tree.join("var/lib/dpkg/status");
    let list = package_list(&fs::read_to_string(&status).map_err(BuildError::io(&status))?);
    write(&out.join("packages.txt"), list.as_bytes())?;
    let version = fs::read_to_string(tree.join("etc/debian_version")).unwrap_or_default();

    progress.step("file system");
    let raw = work.path().join("rootfs.ext4");
    file_system(&tree, &raw, epoch, progress)?;

    progress.step("compress and bake");
    let (index, baked) =
        compress_and_bake(request, &tree, &raw, &out, &work, &cache, &sources, epoch, progress)?;
    let idx = out.join("rootfs.idx");
    write(&idx, index.to_text().as_bytes())?;

    let loaders = signed_loaders(&tree, &out)?;
    let mut files = BTreeMap::new();
    let made = ["kernel", "ramdisk", "packages.txt", "rootfs.zst", "rootfs.idx"];
    for file in made.into_iter().chain(loaders) {
        files.insert(file.to_owned(), file_entry(&out.join(file))?);
    }
    let description = Description {
        format: FORMAT,
        name: request.name.clone(),
        os: recipe.os.to_owned(),
        release: recipe.release.to_owned(),
        version: version.trim().to_owned(),
        arch: Arch::X86_64,
        method: Method::Image,
        installer: None,
        kernel_args: "quiet".to_owned(),
        kernel,
        rootfs: Some(Rootfs { bytes: index.bytes, data: index.data_bytes() }),
        provenance: Provenance {
            source_date_epoch: epoch,
            suite: recipe.suite.to_owned(),
            components: components(&sources),
            packages: Digest::of(list.as_bytes()),
            package_count: list.lines().count() as u32,
            builder: env!("CARGO_PKG_VERSION").to_owned(),
        },
        files,
    };
    let path = out.join("image.toml");
    let text = publish::toml_text(&description, &path)?;
    write(&path, text.as_bytes())?;
    let digest = Digest::of(text.as_bytes());
    for (profile, finished) in baked {
        bake::describe(&finished, &digest, profile, &out.join("baked"))?;
    }
    progress.step("publish");
    let done = work.publish(&out, &request.images.join(request.name.as_str()));
    done?;
    Ok(Catalogue::open(&request.images).get(&request.name)?)
}

/// Profiles that have been baked, and the directory each lies in.
type BakedIn<'r> = Vec<(&'r BakeProfile, PathBuf)>;

/// The base image's chunks are compressed on every core while the profiles'
/// scripts run, which keep one busy at most.
#[allow(clippy::too_many_arguments)]
fn compress_and_bake<'r>(
    request: &'r BuildRequest,
    tree: &Path,
    raw: &Path,
    out: &Path,
    work: &Workplace,
    cache: &Path,
    sources: &[Source],
    epoch: u64,
    progress: &mut dyn Progress,
) -> Result<(Index, BakedIn<'r>), BuildError> {
    let stop = AtomicBool::new(false);
    let data = out.join("rootfs.zst");
    std::thread::scope(|scope| {
        let packing = scope.spawn(|| pack(raw, &data, |_, _| !stop.load(Ordering::Relaxed)));
        let mut baked = Vec::new();
        let mut failed = None;
        for profile in &request.profiles {
            let dir = work.path().join(format!("bake-{}", profile.name));
            match bake::apply(profile, tree, &dir, cache, sources, epoch, progress) {
                Ok(()) => baked.push((profile, dir)),
                Err(e) => {
                    failed = Some(e);
                    break;
                }
            }
        }
        while failed.is_none() && !packing.is_finished() {
            if progress.cancelled() {
                failed = Some(ChildError::Cancelled.into());
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        stop.store(failed.is_some(), Ordering::Relaxed);
        let packed = packing.join().unwrap_or_else(|_| Err(io::Error::other("packing died")));
        match failed {
            Some(e) => Err(e),
            None => Ok((packed.map_err(BuildError::io(&data))?, baked)),
        }
    })
}

/// Where packages come from, for an image of this recipe.
pub fn sources_for(request: &BuildRequest, recipe: &Recipe) -> Result<Vec<Source>, BuildError> {
    let mut sources = match &request.mirror {
        Some(uri) => {
            let main = vec!["main".to_owned()];
            sources::from_mirror(uri, recipe.suite, request.components.as_ref().unwrap_or(&main))
        }
        None => sources::for_suite(Path::new("/etc/apt"), recipe.suite)?,
    };
    if let Some(components) = &request.components {
        sources.iter_mut().for_each(|s| s.components.clone_from(components));
    }
    Ok(sources::through(sources, &request.through))
}

fn components(sources: &[Source]) -> Vec<String> {
    let mut all: Vec<String> = sources.iter().flat_map(|s| s.components.clone()).collect();
    all.sort();
    all.dedup();
    all
}

fn packages(request: &BuildRequest, sources: &[Source]) -> String {
    let mut all: Vec<&str> = PACKAGES.to_vec();
    if components(sources).iter().any(|c| c == "non-free-firmware") {
        all.extend(FIRMWARE);
    }
    all.extend(request.packages.iter().map(String::as_str));
    all.join(",")
}

/// The newest `Date` of the suites' release files, in seconds since 1970.
pub fn epoch(
    sources: &[Source],
    work: &Path,
    progress: &mut dyn Progress,
) -> Result<u64, BuildError> {
    let mut newest = 0;
    for source in sources {
        let uri = format!("{}/dists/{}/InRelease", source.uri, source.suite);
        let path = work.join("InRelease");
        // apt's own downloader: the host's proxies and certificates hold.
        let mut command = Command::new("/usr/lib/apt/apt-helper");
        clean_environment(&mut command);
        command.arg("download-file").arg(&uri).arg(&path);
        child::run(&format!("fetching {uri}"), command, progress)?;
        let text = fs::read_to_string(&path).map_err(BuildError::io(&path))?;
        let _ = fs::remove_file(&path);
        let date = release_date(&text).ok_or_else(|| BuildError::Release {
            uri,
            reason: "has no date that can be read".to_owned(),
        })?;
        newest = newest.max(date);
    }
    Ok(newest)
}

/// `Date: Sat, 06 Sep 2025 09:56:55 UTC` in seconds since 1970.
pub(crate) fn release_date(text: &str) -> Option<u64> {
    let date = text.lines().find_map(|l| l.strip_prefix("Date: "))?;
    let date = date.trim().trim_end_matches("UTC").trim_end();
    let civil = jiff::civil::DateTime::strptime("%a, %d %b %Y %H:%M:%S", date).ok()?;
    u64::try_from(civil.in_tz("UTC").ok()?.timestamp().as_second()).ok()
}

fn make_tree(
    recipe: &Recipe,
    packages: &str,
    sources: &[Source],
    epoch: u64,
    work: &Workplace,
    cache: &Path,
    progress: &mut dyn Progress,
) -> Result<PathBuf, BuildError> {
    let at = work.path();
    // Modules by name, for the installed system's own ramdisk.
    let wanted = recipe::DISKS.join(" ");
    let hook = format!(
        "#!/bin/sh\nset -e\n[ \"$1\" = prereqs ] && exit 0\n\
         . /usr/share/initramfs-tools/hook-functions\n\
         for m in {wanted}; do manual_add_modules \"$m\"; done\n"
    );
    write(&at.join("initramfs.hook"), hook.as_bytes())?;
    write(&at.join("initramfs.conf"), b"MODULES=list\nCOMPRESS=zstd\n")?;
    write(&at.join("dpkg.cfg"), (PATH_RULES.join("\n") + "\n").as_bytes())?;
    let lines: Vec<String> = sources.iter().map(Source::line).collect();
    let mut arguments: Vec<&OsStr> = vec![at.as_ref(), cache.as_ref()];
    arguments.extend([OsStr::new(recipe.suite), OsStr::new(packages)]);
    arguments.extend(lines.iter().map(OsStr::new));
    let mut command = isolated_script(include_str!("scripts/tree.sh"), &arguments);
    command.env("SOURCE_DATE_EPOCH", epoch.to_string());
    child::run("mmdebstrap", command, progress)?;
    let tree = at.join("tree");
    let mut command = Command::new("sh");
    command.args(["-euc", CLEAN, "clean"]).arg(&tree);
    clean_environment(&mut command);
    child::run("cleaning the root file system", command, progress)?;
    Ok(tree)
}

fn file_system(
    tree: &Path,
    raw: &Path,
    epoch: u64,
    progress: &mut dyn Progress,
) -> Result<(), BuildError> {
    let mut command = Command::new("sh");
    command.args(["-euc", MKE2FS, "mke2fs"]).arg(tree).arg(raw);
    clean_environment(&mut command);
    command.env("SOURCE_DATE_EPOCH", epoch.to_string());
    child::run("mke2fs", command, progress)?;
    ext4::settle_times(raw, epoch).map_err(BuildError::io(raw))
}

/// Copies the tree's own signed loaders beside the kernel that they start.
fn signed_loaders(tree: &Path, out: &Path) -> Result<Vec<&'static str>, BuildError> {
    let mut copied = Vec::new();
    for (name, from) in recipe::LOADERS {
        let from = tree.join(from);
        if from.is_file() {
            fs::copy(&from, out.join(name)).map_err(BuildError::io(&from))?;
            copied.push(name);
        }
    }
    Ok(copied)
}

pub(super) fn write(path: &Path, content: &[u8]) -> Result<(), BuildError> {
    fs::write(path, content).map_err(BuildError::io(path))
}

/// Entries for a list of files in `dir`.
pub(super) fn entries(
    dir: &Path,
    files: &[&str],
) -> Result<BTreeMap<String, FileEntry>, BuildError> {
    files.iter().map(|f| Ok(((*f).to_owned(), file_entry(&dir.join(f))?))).collect()
}

#[cfg(test)]
mod tests {
    use super::release_date;

    #[test]
    fn the_epoch_is_the_date_of_the_release_file() {
        let text = "Hash: SHA256\n\nOrigin: Debian\nDate: Sat, 06 Sep 2025 09:56:55 UTC\n";
        assert_eq!(release_date(text), Some(1_757_152_615));
        assert_eq!(release_date("Origin: x\n"), None);
    }
}
