//! What the request of an install names, read once however many nodes it is
//! for: profile, image, mirror, and whether the texts for its installer are
//! sound.

use super::install::InstallRequest;
use super::{Ctx, Problem};
use crate::image::Image;
use crate::mirror::Mirror;
use crate::model::{Method, Name};
use crate::preseed::{File, Preseeds};
use crate::profile::Profile;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

/// How long git may think about the configuration's commit.
const GIT: Duration = Duration::from_secs(2);

/// What a request names, as it is at the moment.
pub(super) struct Chosen {
    /// Profile.
    pub profile: Profile,
    /// Image.
    pub image: Image,
    /// Mirror, if all packages are to come from one.
    pub mirror: Option<Mirror>,
    /// Commit of the configuration.
    pub config_commit: Option<String>,
}

/// Reads what a request names.
pub(super) async fn choose(ctx: &Arc<Ctx>, r: &InstallRequest) -> Result<Chosen, Problem> {
    let named =
        |text: &str, field| text.parse::<Name>().map_err(|e| Problem::bad(e.to_string()).at(field));
    let profile = named(&r.profile, "/type")?;
    let image = match &r.image {
        Some(i) => named(i, "/image")?,
        None => ctx.config.install.image.clone(),
    };
    let mirror = r.mirror.as_ref().map(|m| named(m, "/mirror")).transpose()?;
    let (images, profiles) = (ctx.images.clone(), ctx.profiles.clone());
    let (mirrors, preseeds) = (ctx.mirrors.shelf().clone(), ctx.preseeds.clone());
    let read = tokio::task::spawn_blocking(move || {
        let of_mirror = |e| Problem::from(e).at("/mirror");
        let profile = profiles.get(&profile).map_err(|e| Problem::from(e).at("/type"))?;
        let image = images.get(&image).map_err(|e| Problem::from(e).at("/image"))?;
        let mirror = mirror.map(|m| mirrors.get(&m)).transpose().map_err(of_mirror)?;
        sound(&preseeds, &image)?;
        Ok::<_, Problem>(Chosen { profile, image, mirror, config_commit: None })
    });
    let (read, config_commit) = tokio::join!(read, config_commit(&ctx.config.config_dir));
    let chosen = read.map_err(|e| Problem::internal(e.to_string()))??;
    Ok(Chosen { config_commit, ..chosen })
}

/// A site's own template may have been changed since the server started: a
/// fault in one that this image's installer is given is said before a disk is
/// wiped.
fn sound(preseeds: &Preseeds, image: &Image) -> Result<(), Problem> {
    let d = &image.description;
    let mut files = match d.method {
        Method::Preseed => {
            let release = format!("{}-{}", d.os, d.release).parse();
            let unfit = |e: crate::preseed::PreseedError| Problem::unfit(e.to_string());
            vec![File::Preseed(release.map_err(|e| unfit(e).at("/image"))?)]
        }
        Method::Autoinstall => vec![File::UserData, File::MetaData],
        _ => return Ok(()),
    };
    files.extend([File::Early, File::Late]);
    let Some(fault) = preseeds.lint_files(&files).into_iter().next() else { return Ok(()) };
    let m = format!(
        "{fault}; the installer of image '{}' is given that file: mend it (`build-server check` \
         reads all of them), no restart is needed",
        image.name
    );
    Err(Problem::unfit(m).at("/image"))
}

/// The commit of the configuration, `-dirty` where it has changes. Nobody is
/// kept waiting for it: a directory on a file server may not answer.
async fn config_commit(dir: &Path) -> Option<String> {
    let git = async |args: &[&str]| {
        let mut git = tokio::process::Command::new("git");
        git.arg("-C").arg(dir).args(args).stdin(Stdio::null()).kill_on_drop(true);
        let out = git.output().await.ok().filter(|o| o.status.success())?;
        Some(String::from_utf8_lossy(&out.stdout).trim().to_owned())
    };
    let both = async {
        let commit = git(&["rev-parse", "HEAD"]).await?;
        let dirty = git(&["status", "--porcelain", "--", "."]).await?;
        Some(if dirty.is_empty() { commit } else { format!("{commit}-dirty") })
    };
    tokio::time::timeout(GIT, both).await.ok().flatten()
}
