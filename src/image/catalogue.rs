//! The images there are. Reads descriptions only; a directory without
//! `image.toml` is not an image, which is how an unfinished build stays
//! invisible.

use super::description::{BakedDescription, Description, FORMAT, FileEntry};
use crate::model::plan::RootfsPlan;
use crate::model::{Digest, Name};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No such image.
    #[error("no image '{name}'; there {}", Self::list(.known))]
    Unknown {
        /// What was asked for.
        name: Name,
        /// What there is.
        known: Vec<Name>,
    },
    /// The description does not parse.
    #[error("{}: {reason}", .path.display())]
    Invalid {
        /// File.
        path: PathBuf,
        /// What is wrong with it, with line where known.
        reason: String,
    },
    /// A file that the description names is missing or of another size.
    #[error("image '{name}' is damaged: {}: {reason}; build it again", .path.display())]
    Damaged {
        /// Image.
        name: Name,
        /// File.
        path: PathBuf,
        /// Missing, or the two sizes.
        reason: String,
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

impl ImageError {
    fn list(known: &[Name]) -> String {
        if known.is_empty() {
            return "are none yet: 'provision images build debian-12' makes one".to_owned();
        }
        let names: Vec<&str> = known.iter().map(Name::as_str).collect();
        format!("{} {}", if names.len() == 1 { "is" } else { "are" }, names.join(", "))
    }

    /// Whether the image does not exist, as against being unreadable.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }
}

/// An image that is in the directory but cannot be used.
#[derive(Debug)]
pub struct ImageFault {
    /// Directory name.
    pub name: Name,
    /// Why.
    pub error: ImageError,
}

/// A profile applied to an image ahead of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Baked {
    /// Its directory.
    pub dir: PathBuf,
    /// `baked.toml`.
    pub description: BakedDescription,
}

/// An image, checked: the description parses and every file is there in its
/// size. Digests are checked where the bytes are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Name.
    pub name: Name,
    /// Its directory.
    pub dir: PathBuf,
    /// Digest of `image.toml`.
    pub digest: Digest,
    /// `image.toml`.
    pub description: Description,
    /// Baked variants that were made from this very image, by profile.
    pub baked: BTreeMap<Name, Baked>,
}

impl Image {
    /// The kernel to boot the agent with.
    pub fn kernel(&self) -> PathBuf {
        self.dir.join("kernel")
    }

    /// The ramdisk to boot the agent with, without the agent.
    pub fn ramdisk(&self) -> PathBuf {
        self.dir.join("ramdisk")
    }

    /// The baked variant for this profile, if its digest still fits.
    pub fn baked_for(&self, profile: &Name, digest: &Digest) -> Option<&Baked> {
        self.baked.get(profile).filter(|b| b.description.profile_digest == *digest)
    }

    /// What the agent is told to write: the baked variant, else the bare
    /// image. `prefix` is where the server serves the catalogue's directory,
    /// such as `/images`. The paths name the [`version`], so that a node never
    /// gets the files of an image that was built anew in the meantime. `None`
    /// when the image is not of method `image`.
    pub fn rootfs_plan(&self, baked: Option<&Baked>, prefix: &str) -> Option<RootfsPlan> {
        let at = format!("{}/{}", prefix.trim_end_matches('/'), self.name);
        let (at, files, bytes) = match baked {
            Some(b) => (
                format!("{at}/baked/{}", b.description.profile),
                &b.description.files,
                b.description.rootfs.bytes,
            ),
            None => (at, &self.description.files, self.description.rootfs.as_ref()?.bytes),
        };
        let at = format!("{at}/{}", version(files)?);
        Some(RootfsPlan {
            data: format!("{at}/rootfs.zst"),
            index: format!("{at}/rootfs.idx"),
            index_digest: files.get("rootfs.idx")?.sha256,
            bytes,
        })
    }
}

/// What tells one build of these files from another: the first 16 hexadecimal
/// digits of the digest of `rootfs.idx`, which fixes every byte of the root
/// file system. `None` where there is no such file.
pub fn version(files: &BTreeMap<String, FileEntry>) -> Option<String> {
    Some(files.get("rootfs.idx")?.sha256.to_hex()[..16].to_owned())
}

/// A directory of images. Every call reads the disk, so that a finished build
/// shows without a restart; a description is a few kilobytes.
#[derive(Debug, Clone)]
pub struct Catalogue {
    dir: PathBuf,
}

impl Catalogue {
    /// The catalogue in `dir`, which need not exist yet.
    pub fn open(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// All usable images by name, and those that are not with the reason.
    pub fn list(&self) -> Result<(Vec<Image>, Vec<ImageFault>), ImageError> {
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for name in self.names()? {
            match self.load(&name) {
                Ok(image) => good.push(image),
                Err(error) => bad.push(ImageFault { name, error }),
            }
        }
        Ok((good, bad))
    }

    /// One image.
    pub fn get(&self, name: &Name) -> Result<Image, ImageError> {
        let known = self.names()?;
        if !known.contains(name) {
            return Err(ImageError::Unknown { name: name.clone(), known });
        }
        self.load(name)
    }

    fn names(&self) -> Result<Vec<Name>, ImageError> {
        names_with(&self.dir, "image.toml")
    }

    fn load(&self, name: &Name) -> Result<Image, ImageError> {
        let dir = self.dir.join(name.as_str());
        let path = dir.join("image.toml");
        let text = read(&path)?;
        let description: Description = parse(&path, &text)?;
        let invalid = |reason: String| ImageError::Invalid { path: path.clone(), reason };
        if description.format != FORMAT {
            return Err(invalid(format!(
                "format {} is not known here, {FORMAT} is; build the image again",
                description.format
            )));
        }
        if description.name != *name {
            return Err(invalid(format!(
                "name is '{}' but the directory's is '{name}'",
                description.name
            )));
        }
        check_files(name, &dir, &description.files)?;
        let suite = description.installer.iter().flat_map(|i| &i.files);
        for (file, entry) in suite {
            let inside = file.split('/').all(|p| !p.is_empty() && p != "." && p != "..");
            if !inside || !file.starts_with("suite/") {
                return Err(invalid(format!("'{file}' is no path in suite/")));
            }
            check_file(name, &dir.join(file), entry)?;
        }
        let digest = Digest::of(text.as_bytes());
        let mut baked = BTreeMap::new();
        for profile in names_with(&dir.join("baked"), "baked.toml")? {
            // A damaged or outdated variant is the same as none: the install
            // applies the profile on the node instead.
            if let Some(b) = load_baked(name, &dir, &profile, &digest) {
                baked.insert(profile, b);
            }
        }
        Ok(Image { name: name.clone(), dir, digest, description, baked })
    }
}

fn load_baked(name: &Name, dir: &Path, profile: &Name, image: &Digest) -> Option<Baked> {
    let dir = dir.join("baked").join(profile.as_str());
    let path = dir.join("baked.toml");
    let description: BakedDescription = parse(&path, &read(&path).ok()?).ok()?;
    let fits = description.format == FORMAT
        && description.image == *image
        && description.profile == *profile
        && check_files(name, &dir, &description.files).is_ok();
    fits.then_some(Baked { dir, description })
}

fn check_files(
    name: &Name,
    dir: &Path,
    files: &BTreeMap<String, FileEntry>,
) -> Result<(), ImageError> {
    for (file, entry) in files {
        let path = dir.join(file);
        if file.parse::<Name>().is_err() {
            let reason = "not a plain file name".to_owned();
            return Err(ImageError::Damaged { name: name.clone(), path, reason });
        }
        check_file(name, &path, entry)?;
    }
    Ok(())
}

fn check_file(name: &Name, path: &Path, entry: &FileEntry) -> Result<(), ImageError> {
    let damaged =
        |reason: String| ImageError::Damaged { name: name.clone(), path: path.to_owned(), reason };
    match fs::symlink_metadata(path) {
        Ok(m) if m.is_file() && m.len() == entry.size => Ok(()),
        Ok(m) => Err(damaged(format!("{} bytes, {} described", m.len(), entry.size))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(damaged("missing".to_owned())),
        Err(source) => Err(ImageError::Io { path: path.to_owned(), source }),
    }
}

/// Sub-directories of `dir` with a valid name that hold `file`, sorted.
fn names_with(dir: &Path, file: &str) -> Result<Vec<Name>, ImageError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(ImageError::Io { path: dir.to_owned(), source }),
    };
    let mut names: Vec<Name> = entries
        .filter_map(Result::ok)
        .filter(|e| e.path().join(file).is_file())
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect();
    names.sort();
    Ok(names)
}

fn read(path: &Path) -> Result<String, ImageError> {
    fs::read_to_string(path).map_err(|source| ImageError::Io { path: path.to_owned(), source })
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<T, ImageError> {
    toml::from_str(text).map_err(|e| ImageError::Invalid {
        path: path.to_owned(),
        reason: e.to_string().trim_end().to_owned(),
    })
}
