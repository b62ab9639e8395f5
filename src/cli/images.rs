//! `provision images` and `provision profiles`.

use super::output::{Table, bytes, segment};
use super::watch::watch;
use super::{Fail, Session};
use crate::api::images::{AddImage, BuildImage, ProfileShown};
use crate::model::{Name, Operation};
use serde_json::Value;
use std::path::PathBuf;

/// `provision images`
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  provision images\n  provision images build debian-12 --bake docker\n  provision images add debian-13\n  provision images add debian-13 --dir /srv/netboot --firmware /srv/firmware"
)]
pub struct ImagesArgs {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(clap::Subcommand)]
enum What {
    /// All images
    List,
    /// Build an image from the build host's own package mirror
    Build {
        /// debian-12 or debian-13
        image: String,
        /// Profiles to apply ahead of time, so that an install downloads nothing
        #[arg(long)]
        bake: Vec<Name>,
        /// Return at once
        #[arg(long)]
        no_wait: bool,
    },
    /// Add a distribution's own installer, from the build host's package mirror
    ///
    /// Kernel and ramdisk are those of the distribution's netboot package, or
    /// of files on the build host (--dir, --iso). The archive's signature and
    /// every digest are checked; `provision --output json images` says what
    /// could not be.
    Add {
        /// debian-12 or debian-13; from files also ubuntu-16.04, -18.04, -20.04,
        /// -22.04 and -24.04
        release: Name,
        /// What to call the image; RELEASE-installer by default
        #[arg(long)]
        name: Option<Name>,
        /// Directory on the build host with `linux` and `initrd.gz`, as the
        /// distribution's netboot files are laid out; needs the role admin
        #[arg(long, value_name = "DIR", conflicts_with = "iso")]
        dir: Option<PathBuf>,
        /// ISO image on the build host with the same, such as mini.iso
        #[arg(long, value_name = "FILE")]
        iso: Option<PathBuf>,
        /// Directory on the build host with firmware for the installer's
        /// kernel, laid out as /lib/firmware
        #[arg(long, value_name = "DIR")]
        firmware: Option<PathBuf>,
        /// Refuse an archive that lacks installer components, instead of making
        /// them from its ordinary packages
        #[arg(long)]
        no_repack: bool,
        /// Return at once
        #[arg(long)]
        no_wait: bool,
    },
}

fn text(v: &Value, k: &str) -> String {
    match v.get(k) {
        Some(Value::String(s)) => s.clone(),
        Some(Value::Array(a)) => a.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
        Some(Value::Object(o)) => o.keys().cloned().collect::<Vec<_>>().join(" "),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

fn faults(v: &Value) {
    for f in v.get("faults").and_then(Value::as_array).into_iter().flatten() {
        eprintln!("cannot be used: {}: {}", text(f, "name"), text(f, "reason"));
    }
}

pub(super) async fn run(s: &Session, a: ImagesArgs) -> Result<(), Fail> {
    match a.what.unwrap_or(What::List) {
        What::List => {
            let v: Value = s.client.get("/v1/images").await?;
            faults(&v);
            s.out.show(&v, |v| {
                let mut t = Table::new(&[
                    "name", "version", "kernel", "packages", "size", "baked", "digest",
                ]);
                for i in v.get("items").and_then(Value::as_array).into_iter().flatten() {
                    let size = i.get("bytes").and_then(Value::as_u64).unwrap_or(0);
                    t.row(&[
                        text(i, "name"),
                        text(i, "version"),
                        text(i, "kernel"),
                        text(i, "packages"),
                        bytes(size),
                        text(i, "baked"),
                        text(i, "digest").chars().take(19).collect(),
                    ]);
                }
                t
            })
        }
        What::Build { image, bake, no_wait } => {
            let path = format!("/v1/images/{}/build", segment(&image));
            let op: Operation = s.client.post(&path, &BuildImage { bake }).await?;
            shown_or_watched(s, op, no_wait).await
        }
        What::Add { release, name, dir, iso, firmware, no_repack, no_wait } => {
            let name = name.map_or_else(|| format!("{release}-installer"), |n| n.to_string());
            let path = format!("/v1/images/{}/add", segment(&name));
            let [dir, iso, firmware] = [dir, iso, firmware].map(|p| p.map(from_here));
            let add = AddImage { release, repack: !no_repack, dir, iso, firmware };
            let op: Operation = s.client.post(&path, &add).await?;
            shown_or_watched(s, op, no_wait).await
        }
    }
}

/// A path as the server needs it: whoever names one without a slash is on the
/// build host.
fn from_here(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

pub(super) async fn shown_or_watched(
    s: &Session,
    op: Operation,
    no_wait: bool,
) -> Result<(), Fail> {
    if no_wait {
        return s.out.show(&op, |o| {
            let mut t = Table::new(&["operation"]);
            t.row(&[o.id.to_string()]);
            t
        });
    }
    watch(s, vec![op]).await.map(drop)
}

pub(super) async fn profiles(s: &Session) -> Result<(), Fail> {
    let v: Value = s.client.get("/v1/profiles").await?;
    faults(&v);
    s.out.show(&v, |v| {
        let mut t = Table::new(&["name", "description", "services"]);
        let items = v.get("items").cloned().unwrap_or_default();
        for p in serde_json::from_value::<Vec<ProfileShown>>(items).unwrap_or_default() {
            t.row(&[p.name.to_string(), p.description, p.services.join(" ")]);
        }
        t
    })
}
