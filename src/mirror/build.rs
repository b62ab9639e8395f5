//! Makes a mirror. Blocking, a minute or two.
//!
//! Order: indices, their signatures checked → which packages → fetched, each
//! checked → indices of our own → signed → moved in.

use super::closure::{self, Closure, INSTALLER};
use super::description::{Description, FORMAT, Origin};
use super::shelf::{DESCRIPTION, KEY, Mirror, Mirrors, SIGNATURE};
use super::{MirrorError, plain};
use crate::archive::suite::Suite;
use crate::archive::{Index, Package, SigningKey};
use crate::image::apt::{self, Apt};
use crate::image::description::Method;
use crate::image::publish::{self, Workplace, file_entry};
use crate::image::recipe::{self, Recipe};
use crate::image::sources::{self, Source};
use crate::image::{BuildError, FileEntry, Image, Progress};
use crate::model::{Digest, Name, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What to make.
#[derive(Debug, Clone)]
pub struct MirrorRequest {
    /// Name of the mirror.
    pub name: Name,
    /// Image it is for.
    pub image: Image,
    /// Profile it is for, and its digest.
    pub profile: Option<(Name, Digest)>,
    /// Packages that the profile and the site ask for; `?` behind one that may
    /// be missing.
    pub packages: Vec<String>,
    /// Archives; else those of the host's own apt configuration.
    pub sources: Option<Vec<Source>>,
    /// Archives that are fetched through another address: theirs, that one.
    pub through: Vec<(String, String)>,
    /// Where mirrors are.
    pub mirrors: PathBuf,
    /// Packages downloaded before; may be removed at any time.
    pub cache: PathBuf,
    /// Where the package cache of this host keeps its files.
    pub cache_files: Option<PathBuf>,
    /// Our key for archives.
    pub key: PathBuf,
}

/// Makes the mirror.
///
/// # Errors
/// See [`MirrorError`]; nothing is left of it then.
pub fn build_mirror(
    request: &MirrorRequest,
    progress: &mut dyn Progress,
) -> Result<Mirror, MirrorError> {
    let shelf = Mirrors::open(&request.mirrors);
    if request.mirrors.join(request.name.as_str()).exists() {
        return Err(MirrorError::Taken(request.name.clone()));
    }
    let image = &request.image.description;
    let of_image = |r: &&Recipe| r.os == image.os && r.release == image.release;
    let recipe = recipe::RECIPES.iter().find(of_image);
    let recipe = recipe.ok_or_else(|| MirrorError::Release(request.image.name.clone()))?;
    let key = SigningKey::open(&request.key)?;
    if let Some(i) = image.installer.as_ref().filter(|i| i.key != key.fingerprint()) {
        let (image, believes) = (request.image.name.clone(), i.key.clone());
        return Err(MirrorError::ForeignImage { image, believes });
    }
    let work = Workplace::open(&request.mirrors, &request.name)?;

    progress.step("indices of the archive");
    let archives = Archives::open(request, recipe, &work, progress)?;

    progress.step("which packages");
    let mut wanted: Vec<String> = match image.method {
        Method::Image => recipe::PACKAGES.map(str::to_owned).to_vec(),
        Method::Preseed | Method::Autoinstall => INSTALLER.map(str::to_owned).to_vec(),
    };
    wanted.extend(request.packages.iter().cloned());
    let closure = closure::closure(&archives.apt, &archives.index()?, &wanted)?;
    if !closure.absent.is_empty() {
        progress.log(&format!("this release does not have: {}", closure.absent.join(" ")));
    }
    let packages = archives.packages(&closure)?;

    progress.step("packages");
    let out = work.path().join("mirror");
    let mut files = BTreeMap::new();
    for (source, some) in &packages {
        let some: Vec<&Package> = some.iter().collect();
        let missing = archives.apt.fetch(source, &some, progress)?;
        if !missing.is_empty() {
            let gone = missing.iter().map(|p| p.filename.clone()).collect();
            return Err(MirrorError::Packages(gone));
        }
        for p in some {
            place(&archives.apt.path(p), &out, p, &mut files)?;
        }
    }
    progress.step("installer components");
    let components = components(request, &archives, &out, &mut files, progress)?;

    progress.step("indices and signature");
    let count = packages.values().map(Vec::len).sum::<usize>() as u32;
    let text = packages.into_values().flatten().map(|p| p.fields.text()).collect();
    let date = archives.from.iter().map(|(_, date)| *date).max().unwrap_or(0);
    let (component_count, indices) = indices(text, components);
    let suite = Suite {
        name: recipe.suite,
        description: &format!("{} for {}, by Provision", recipe.name, request.image.name),
        date,
        components: &["main", "non-free-firmware"],
        indices,
    };
    suite.write(&out, &key)?;
    write(&out.join(KEY), &key.public())?;
    entries(&out, &out, &mut files)?;
    let description = Description {
        format: FORMAT,
        name: request.name.clone(),
        suite: recipe.suite.to_owned(),
        date,
        made: Time::now(),
        builder: env!("CARGO_PKG_VERSION").to_owned(),
        image: request.image.name.clone(),
        image_digest: request.image.digest,
        profile: request.profile.as_ref().map(|(n, _)| n.clone()),
        profile_digest: request.profile.as_ref().map(|(_, d)| *d),
        asked: closure.asked,
        absent: closure.absent,
        packages: count,
        components: component_count,
        key: key.fingerprint(),
        from: archives.from.into_iter().map(|(o, _)| o).collect(),
        files,
    };
    let path = out.join(DESCRIPTION);
    let text = publish::toml_text(&description, &path)?;
    write(&path, text.as_bytes())?;
    write(&out.join(SIGNATURE), key.detached(text.as_bytes(), date).as_bytes())?;
    work.publish(&out, &request.mirrors.join(request.name.as_str()))?;
    shelf.get(&request.name)
}

/// The suites that packages come from.
struct Archives {
    apt: Apt,
    sources: Vec<Source>,
    from: Vec<(Origin, u64)>,
}

impl Archives {
    fn open(
        request: &MirrorRequest,
        recipe: &Recipe,
        work: &Workplace,
        progress: &mut dyn Progress,
    ) -> Result<Self, MirrorError> {
        let sources = match &request.sources {
            Some(own) => own.clone(),
            None => {
                sources::for_suite(Path::new("/etc/apt"), recipe.suite).map_err(BuildError::from)?
            }
        };
        let sources = sources::through(sources, &request.through);
        let apt = Apt::new(&work.path().join("apt"), &request.cache.join("pool"), &sources)?
            .sharing(apt::shared(&request.through, request.cache_files.as_deref()));
        apt.update(progress)?;
        let mut from = Vec::new();
        for source in &sources {
            let end = format!("_dists_{}_InRelease", source.suite);
            let Some(path) = apt.list(&end) else { continue };
            let bytes = fs::read(&path).map_err(MirrorError::io(&path))?;
            let text = String::from_utf8_lossy(&bytes);
            let date = text.lines().find_map(|l| l.strip_prefix("Date: ")).unwrap_or_default();
            let at = crate::image::build::release_date(&text).unwrap_or(0);
            let release = Digest::of(&bytes);
            from.push((Origin { suite: source.suite.clone(), date: date.into(), release }, at));
        }
        Ok(Self { apt, sources, from })
    }

    /// The lists of packages, and the archive each is of.
    fn lists(&self) -> Vec<(&Source, PathBuf)> {
        let mut all = Vec::new();
        for s in &self.sources {
            for c in &s.components {
                let end = format!("_dists_{}_{c}_binary-amd64_Packages", s.suite);
                all.extend(self.apt.lists(&end).into_iter().map(|p| (s, p)));
            }
        }
        all
    }

    fn index(&self) -> Result<Index, MirrorError> {
        let mut index = Index::default();
        for (_, path) in self.lists() {
            index.read_thin(&path)?;
        }
        Ok(index)
    }

    /// What the indices say of the chosen packages, by the archive they are
    /// in; each once.
    fn packages(&self, closure: &Closure) -> Result<BTreeMap<String, Vec<Package>>, MirrorError> {
        let name =
            |f: &str| f.rsplit('/').next().and_then(|n| n.split('_').next()).map(str::to_owned);
        let names: BTreeSet<String> = closure.files.iter().filter_map(|f| name(f)).collect();
        let mut seen = BTreeSet::new();
        let mut out: BTreeMap<String, Vec<Package>> = BTreeMap::new();
        for (source, path) in self.lists() {
            let index = Index::read(&path, |n| names.contains(n))?;
            for p in index.all().filter(|p| closure.files.contains(&p.filename)) {
                if plain(&p.filename) && seen.insert(p.filename.clone()) {
                    out.entry(source.uri.clone()).or_default().push(p.clone());
                }
            }
        }
        let missing: Vec<String> = closure.files.difference(&seen).cloned().collect();
        if missing.is_empty() { Ok(out) } else { Err(MirrorError::Packages(missing)) }
    }
}

/// The installer's components, as the image lists them.
fn components(
    request: &MirrorRequest,
    archives: &Archives,
    out: &Path,
    files: &mut BTreeMap<String, FileEntry>,
    progress: &mut dyn Progress,
) -> Result<Option<(u32, String)>, MirrorError> {
    let path = request.image.dir.join("components");
    if request.image.description.installer.is_none() || !path.exists() {
        return Ok(None);
    }
    let index = Index::read(&path, |_| true)?;
    let suite = request.image.dir.join("suite");
    let (own, theirs): (Vec<&Package>, Vec<&Package>) =
        index.all().partition(|p| suite.join(&p.filename).exists());
    let Some(first) = archives.sources.first() else { return Ok(None) };
    let missing = archives.apt.fetch(&first.uri, &theirs, progress)?;
    if !missing.is_empty() {
        // The image is of an older state of the archive.
        let gone = missing.iter().map(|p| p.filename.clone()).collect();
        return Err(MirrorError::Packages(gone));
    }
    for p in theirs {
        place(&archives.apt.path(p), out, p, files)?;
    }
    for p in own {
        place(&suite.join(&p.filename), out, p, files)?;
    }
    let text: Vec<String> = index.all().map(|p| p.fields.text()).collect();
    Ok(Some((text.len() as u32, text.concat())))
}

fn indices(packages: String, components: Option<(u32, String)>) -> (u32, Vec<(String, String)>) {
    let mut all = vec![
        ("main/binary-amd64/Packages".to_owned(), packages),
        // Sources that name it are answered; what is of it is in main here.
        ("non-free-firmware/binary-amd64/Packages".to_owned(), String::new()),
    ];
    let mut count = 0;
    if let Some((n, text)) = components {
        count = n;
        all.push(("main/debian-installer/binary-amd64/Packages".to_owned(), text));
    }
    (count, all)
}

/// Links a fetched file to its place; copies where a link cannot be.
fn place(
    from: &Path,
    out: &Path,
    p: &Package,
    files: &mut BTreeMap<String, FileEntry>,
) -> Result<(), MirrorError> {
    let to = out.join(&p.filename);
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir).map_err(MirrorError::io(dir))?;
    }
    match fs::hard_link(from, &to) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(_) => drop(fs::copy(from, &to).map_err(MirrorError::io(&to))?),
    }
    // It was checked a moment ago: when it was fetched, or the image opened.
    files.insert(p.filename.clone(), FileEntry { sha256: p.sha256, size: p.size });
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), MirrorError> {
    fs::write(path, bytes).map_err(MirrorError::io(path))
}

/// Every file below `dir` that is not known yet, by its path below `root`.
fn entries(
    root: &Path,
    dir: &Path,
    to: &mut BTreeMap<String, FileEntry>,
) -> Result<(), MirrorError> {
    for entry in fs::read_dir(dir).map_err(MirrorError::io(dir))? {
        let path = entry.map_err(MirrorError::io(dir))?.path();
        if path.is_dir() {
            entries(root, &path, to)?;
        } else if let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str)
            && !to.contains_key(name)
        {
            to.insert(name.to_owned(), file_entry(&path)?);
        }
    }
    Ok(())
}
