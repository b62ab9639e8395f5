//! The image that a mirror was made for, in the same file: a closed room has no
//! archive to add it from, and one that another server added believes another
//! key. The digest of its `image.toml` is in what is signed of the mirror, and
//! that names every file.

use super::MirrorError;
use super::carry::{Expected, LARGEST};
use super::description::Description;
use crate::image::publish::Workplace;
use crate::image::{self, Catalogue, FileEntry, Image};
use crate::model::{Digest, Name};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::PathBuf;

/// Where it is in the file.
pub(super) const PREFIX: &str = "image/";
/// Its description; comes first.
pub(super) const TOML: &str = "image.toml";

/// Whether the image that a mirror was made for is in the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImageHere {
    /// It is, as it was then.
    Same,
    /// One of its name is, which is another one or damaged.
    Other,
    /// None of its name is.
    Absent,
}

impl ImageHere {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Other => "other",
            Self::Absent => "absent",
        }
    }
}

/// What becomes of an image that has the name of the one that is carried in,
/// and is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OtherImage {
    /// It stays, and the mirror comes in without its own.
    Keep,
    /// The one that is carried in takes its place.
    Replace,
}

impl Description {
    /// The image that the mirror was made for, if it is there as it was then.
    pub fn image_in(&self, images: &Catalogue) -> (ImageHere, Option<Image>) {
        match images.get(&self.image) {
            Ok(i) if i.digest == self.image_digest => (ImageHere::Same, Some(i)),
            Err(e) if e.is_unknown() => (ImageHere::Absent, None),
            _ => (ImageHere::Other, None),
        }
    }
}

/// Every file beside the description. Baked variants are not among them: they
/// are of another profile's digest as soon as that is edited, and unsigned.
pub(super) fn files(d: &image::Description) -> BTreeMap<String, FileEntry> {
    let suite = d.installer.iter().flat_map(|i| &i.files);
    d.files.iter().chain(suite).map(|(f, e)| (f.clone(), e.clone())).collect()
}

/// An image on its way in.
pub(super) struct Incoming {
    expected: Expected,
    /// None where the one that is here stays: then it is only checked.
    place: Option<Place>,
}

/// Where it is put together, and where it will be.
struct Place {
    work: Workplace,
    name: Name,
    out: PathBuf,
    to: PathBuf,
}

impl Place {
    /// None where the image that is here stays.
    fn open(
        images: &Catalogue,
        of: &Description,
        other: Option<OtherImage>,
    ) -> Result<Option<Self>, MirrorError> {
        let stays = || match (of.image_in(images).0, other) {
            (ImageHere::Same, _) | (ImageHere::Other, Some(OtherImage::Keep)) => Ok(true),
            (ImageHere::Absent, _) | (ImageHere::Other, Some(OtherImage::Replace)) => Ok(false),
            (ImageHere::Other, None) => Err(MirrorError::OtherImage(of.image.clone())),
        };
        if stays()? {
            return Ok(None);
        }
        let work = Workplace::open(images.dir(), &of.image)?;
        // Asked again: from here on nobody else puts one there.
        if stays()? {
            return Ok(None);
        }
        let name = of.image.clone();
        let (out, to) = (work.path().join(name.as_str()), images.dir().join(name.as_str()));
        fs::create_dir(&out).map_err(MirrorError::io(&out))?;
        Ok(Some(Self { work, name, out, to }))
    }
}

impl Incoming {
    /// Reads `image.toml`.
    ///
    /// # Errors
    /// It is not the signed one; or there is another image of this name, and
    /// nothing is said of what becomes of it.
    pub fn begin(
        entry: &mut tar::Entry<'_, impl Read>,
        of: &Description,
        images: &Catalogue,
        other: Option<OtherImage>,
    ) -> Result<Self, MirrorError> {
        let bad = |why: &str| MirrorError::Import(format!("{PREFIX}{TOML}: {why}"));
        if !entry.header().entry_type().is_file() || entry.size() > LARGEST {
            return Err(bad("not the description of an image"));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(|e| bad(&format!("cut off or damaged: {e}")))?;
        if Digest::of(&bytes) != of.image_digest {
            return Err(bad("not of the image that was signed with the mirror"));
        }
        let text = String::from_utf8_lossy(&bytes);
        let d: image::Description =
            toml::from_str(&text).map_err(|e| bad(e.to_string().trim_end()))?;
        let place = Place::open(images, of, other)?;
        if let Some(p) = &place {
            let path = p.out.join(TOML);
            fs::write(&path, &bytes).map_err(MirrorError::io(&path))?;
        }
        let out = place.as_ref().map(|p| p.out.clone());
        // It is there: a description that names itself must not write over it.
        let seen = BTreeSet::from([TOML.to_owned()]);
        Ok(Self { expected: Expected { files: files(&d), out, seen }, place })
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.expected.files.values().map(|f| f.size).sum()
    }

    /// One file, called `file` in the image; its size.
    pub fn take(
        &mut self,
        file: &str,
        entry: &mut tar::Entry<'_, impl Read>,
    ) -> Result<u64, MirrorError> {
        self.expected.take(file, entry)
    }

    /// # Errors
    /// A file has not come, or the catalogue would not list it.
    pub fn complete(&self) -> Result<(), MirrorError> {
        self.expected.complete(PREFIX)?;
        let Some(p) = &self.place else { return Ok(()) };
        // Name, format and paths, as whoever installs from it will read them.
        let read = Catalogue::open(p.work.path()).get(&p.name);
        read.map(drop).map_err(|e| MirrorError::Import(e.to_string()))
    }

    /// Makes it visible; whether there was anything to do.
    pub fn publish(self) -> Result<bool, MirrorError> {
        let Some(p) = self.place else { return Ok(false) };
        p.work.publish(&p.out, &p.to)?;
        Ok(true)
    }
}
