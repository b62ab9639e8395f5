//! Applies a profile to an image ahead of time, so that an install downloads
//! nothing. The scripts run in a copy of the root file system, in namespaces
//! that end with them; the result is an image of its own beside the base.

use super::build::{BuildError, Progress, entries, write};
use super::catalogue::{Baked, Catalogue};
use super::child::{self, isolated_script};
use super::description::{BakedDescription, FORMAT, Rootfs};
use super::ext4;
use super::format::{CHUNK, Index, Unpacker};
use super::pack::pack;
use super::publish::{self, Workplace};
use super::rootfs::{CLEAN, MKE2FS, package_list};
use super::sources::{self, Source};
use crate::model::plan::ScriptPlan;
use crate::model::{Digest, Name};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A profile as far as baking is concerned.
#[derive(Debug, Clone)]
pub struct BakeProfile {
    /// Name.
    pub name: Name,
    /// Digest of its directory.
    pub digest: Digest,
    /// Scripts in order.
    pub scripts: Vec<ScriptPlan>,
}

const FILES: [&str; 3] = ["packages.txt", "rootfs.idx", "rootfs.zst"];

/// Bakes `profile` into the image called `name`, which is in the catalogue's
/// directory already. `sources` are for the image's suite.
pub fn bake_image(
    images: &Path,
    name: &Name,
    profile: &BakeProfile,
    sources: &[Source],
    cache: &Path,
    progress: &mut dyn Progress,
) -> Result<Baked, BuildError> {
    let image = Catalogue::open(images).get(name)?;
    let work = Workplace::open(images, name)?;
    let cache = cache.join(&image.description.provenance.suite);
    progress.step("unpack");
    let raw = work.path().join("base.ext4");
    unpack(&image.dir, &raw, progress).map_err(BuildError::io(&raw))?;
    let epoch = image.description.provenance.source_date_epoch;
    let dir = work.path().join("bake");
    apply(profile, &raw, &dir, &cache, sources, epoch, progress)?;
    let out = work.path().join("baked");
    describe(&dir, &image.digest, profile, &out)?;
    progress.step("publish");
    let target = image.dir.join("baked");
    fs::create_dir_all(&target).map_err(BuildError::io(&target))?;
    work.publish(&out.join(profile.name.as_str()), &target.join(profile.name.as_str()))?;
    let again = Catalogue::open(images).get(name)?;
    again.baked.get(&profile.name).cloned().ok_or_else(|| BuildError::Io {
        path: target,
        source: io::Error::other("the image was built anew in the meantime; bake again"),
    })
}

/// Runs the scripts over `base` (a tree or a block image) and leaves
/// `packages.txt`, `rootfs.zst` and `rootfs.idx` in `dir`.
pub(super) fn apply(
    profile: &BakeProfile,
    base: &Path,
    dir: &Path,
    cache: &Path,
    sources: &[Source],
    epoch: u64,
    progress: &mut dyn Progress,
) -> Result<(), BuildError> {
    progress.step(&format!("bake {}", profile.name));
    let scripts = dir.join("scripts");
    fs::create_dir_all(&scripts).map_err(BuildError::io(&scripts))?;
    for (n, script) in profile.scripts.iter().enumerate() {
        write(&scripts.join(format!("{n:03}-{}", script.name)), script.text.as_bytes())?;
    }
    write(&dir.join("sources.list"), sources::text(sources).as_bytes())?;
    write(&dir.join("clean.sh"), CLEAN.as_bytes())?;
    write(&dir.join("mke2fs.sh"), MKE2FS.as_bytes())?;
    let arguments = [base.as_os_str(), dir.as_os_str(), cache.as_os_str()];
    let mut command = isolated_script(include_str!("scripts/bake.sh"), &arguments);
    command.env("SOURCE_DATE_EPOCH", epoch.to_string());
    child::run(&format!("baking profile '{}'", profile.name), command, progress)?;

    let raw = dir.join("rootfs.ext4");
    ext4::settle_times(&raw, epoch).map_err(BuildError::io(&raw))?;
    progress.step(&format!("compress {}", profile.name));
    let data = dir.join("rootfs.zst");
    let index = pack(&raw, &data, |done, total| {
        progress.bytes(done, total);
        !progress.cancelled()
    })
    .map_err(BuildError::io(&data))?;
    fs::remove_file(&raw).map_err(BuildError::io(&raw))?;
    write(&dir.join("rootfs.idx"), index.to_text().as_bytes())?;
    let status = dir.join("status");
    let list = package_list(&fs::read_to_string(&status).map_err(BuildError::io(&status))?);
    write(&dir.join("packages.txt"), list.as_bytes())
}

/// Moves what [`apply`] left in `dir` to `baked/<profile>` and writes its
/// description.
pub(super) fn describe(
    dir: &Path,
    image: &Digest,
    profile: &BakeProfile,
    baked: &Path,
) -> Result<(), BuildError> {
    let out = baked.join(profile.name.as_str());
    fs::create_dir_all(&out).map_err(BuildError::io(&out))?;
    for file in FILES {
        let from = dir.join(file);
        fs::rename(&from, out.join(file)).map_err(BuildError::io(&from))?;
    }
    let idx = out.join("rootfs.idx");
    let text = fs::read(&idx).map_err(BuildError::io(&idx))?;
    let index = Index::parse(&text)
        .map_err(|e| BuildError::Io { path: idx, source: io::Error::other(e) })?;
    let description = BakedDescription {
        format: FORMAT,
        image: *image,
        profile: profile.name.clone(),
        profile_digest: profile.digest,
        rootfs: Rootfs { bytes: index.bytes, data: index.data_bytes() },
        files: entries(&out, &FILES)?,
    };
    let path = out.join("baked.toml");
    let text = publish::toml_text(&description, &path)?;
    write(&path, text.as_bytes())
}

/// The block image back from its chunks, every digest checked.
fn unpack(image: &Path, raw: &Path, progress: &mut dyn Progress) -> io::Result<()> {
    let index = Index::parse(&fs::read(image.join("rootfs.idx"))?).map_err(io::Error::other)?;
    let data = File::open(image.join("rootfs.zst"))?;
    let out = File::create(raw)?;
    out.set_len(index.bytes)?;
    let mut unpacker = Unpacker::new()?;
    let mut buffer = vec![0u8; CHUNK as usize];
    for (n, chunk) in index.chunks.iter().enumerate() {
        let mut frame = vec![0u8; chunk.frame_length as usize];
        data.read_exact_at(&mut frame, chunk.frame_offset)?;
        let length = unpacker.unpack(&index, n, &frame, &mut buffer).map_err(io::Error::other)?;
        out.write_all_at(&buffer[..length], chunk.offset)?;
        progress.bytes(chunk.offset + chunk.length, index.bytes);
        if progress.cancelled() {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "cancelled"));
        }
    }
    Ok(())
}
