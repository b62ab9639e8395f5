//! `/ui/images`, `/ui/profiles`, `/ui/mirrors`: what can be installed, and
//! what is there and cannot be used, with the reason.

use super::Window;
use super::dress::Fault;
use super::frame::{Frame, show};
use super::session::Seat;
use super::view::text::{At, Mark, bytes};
use crate::api::Problem;
use crate::image::Image;
use crate::mirror::Mirror;
use crate::model::{Method, Time};
use crate::profile::Profile;
use askama::Template;
use axum::extract::State;
use axum::response::Response;
use std::sync::Arc;

/// Something that is there and cannot be used.
struct Bad {
    name: String,
    why: String,
}

/// A thing with all that is to be said of it: word, value.
struct Thing {
    name: String,
    mark: Mark,
    line: String,
    facts: Vec<(&'static str, String)>,
}

#[derive(Template)]
#[template(path = "shelf.html")]
struct Page {
    f: Frame,
    what: &'static str,
    make: &'static str,
    things: Vec<Thing>,
    bad: Vec<Bad>,
}

async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Fault> {
    let done = tokio::task::spawn_blocking(read).await;
    Ok(done.map_err(|e| Problem::internal(e.to_string()))??)
}

/// Those that say something.
fn said(all: Vec<(&'static str, String)>) -> Vec<(&'static str, String)> {
    all.into_iter().filter(|(_, v)| !v.is_empty()).collect()
}

fn image(i: &Image) -> Thing {
    let d = &i.description;
    let method = match d.method {
        Method::Image => "written by the agent",
        Method::Preseed => "Debian's installer",
        Method::Autoinstall => "Ubuntu's installer",
    };
    let signed = ["shimx64.efi", "grubx64.efi"].iter().all(|f| d.files.contains_key(*f));
    let size: u64 = d.files.values().map(|f| f.size).sum();
    let baked: Vec<&str> = i.baked.keys().map(|p| p.as_str()).collect();
    let unchecked = d.installer.as_ref().map(|i| i.unchecked.join("; "));
    Thing {
        name: i.name.to_string(),
        mark: Mark::USABLE,
        line: format!("{} {}, {method}", d.os, d.version),
        facts: said(vec![
            ("Kernel", d.kernel.clone()),
            ("Size", bytes(size)),
            ("Packages", d.provenance.package_count.to_string()),
            ("Suite", d.provenance.suite.clone()),
            ("Secure Boot", if signed { "signed loaders" } else { "no signed loaders" }.to_owned()),
            ("Profiles baked in", baked.join(", ")),
            ("Not checked", unchecked.unwrap_or_default()),
            ("Digest", i.digest.to_string()),
        ]),
    }
}

pub(super) async fn images(seat: Seat, State(w): State<Arc<Window>>) -> Result<Response, Fault> {
    let all = w.ctx.images.clone();
    let (good, bad) = blocking(move || Ok(all.list()?)).await?;
    show(&Page {
        f: Frame::live(&w, &seat, "Images", "/ui/images").await,
        what: "images",
        make: "provision images build NAME",
        things: good.iter().map(image).collect(),
        bad: bad
            .into_iter()
            .map(|b| Bad { name: b.name.to_string(), why: b.error.to_string() })
            .collect(),
    })
}

fn profile(p: &Profile) -> Thing {
    let scripts: Vec<&str> = p.scripts.iter().map(|s| s.name.as_str()).collect();
    let warnings: Vec<String> = p.warnings.iter().map(ToString::to_string).collect();
    Thing {
        name: p.name.to_string(),
        mark: Mark::USABLE,
        line: p.description.clone(),
        facts: said(vec![
            ("Needs", p.needs.join(", ")),
            ("Offers", p.offers.join(", ")),
            ("Scripts", scripts.join(", ")),
            ("Packages", p.packages.join(", ")),
            ("Verified in", format!("at most {} s", p.verify_seconds)),
            ("Lint says", warnings.join("; ")),
            ("Digest", p.digest.to_string()),
        ]),
    }
}

pub(super) async fn profiles(seat: Seat, State(w): State<Arc<Window>>) -> Result<Response, Fault> {
    let all = w.ctx.profiles.clone();
    let (good, bad) = blocking(move || Ok(all.list()?)).await?;
    show(&Page {
        f: Frame::live(&w, &seat, "Profiles", "/ui/profiles").await,
        what: "profiles",
        make: "a folder in the profiles directory",
        things: good.iter().map(profile).collect(),
        bad: bad
            .into_iter()
            .map(|b| Bad { name: b.name.to_string(), why: b.error.to_string() })
            .collect(),
    })
}

fn mirror(m: &Mirror, now: Time) -> Thing {
    let d = &m.description;
    let from: Vec<String> = d.from.iter().map(|o| format!("{} of {}", o.suite, o.date)).collect();
    let profile = d.profile.as_ref().map(|p| format!(" and profile {p}")).unwrap_or_default();
    Thing {
        name: d.name.to_string(),
        mark: Mark::USABLE,
        line: format!("for image {}{profile}", d.image),
        facts: said(vec![
            ("Suite", d.suite.clone()),
            ("Made", At::new(d.made, now).text),
            ("Packages", format!("{}, {} installer components", d.packages, d.components)),
            ("Size", bytes(d.bytes())),
            ("From", from.join("; ")),
            ("Asked for and not there", d.absent.join(", ")),
            ("Signed by", d.key.clone()),
            ("Digest", m.digest.to_string()),
        ]),
    }
}

pub(super) async fn mirrors(seat: Seat, State(w): State<Arc<Window>>) -> Result<Response, Fault> {
    let shelf = w.ctx.mirrors.shelf().clone();
    let (good, bad) = blocking(move || Ok(shelf.list()?)).await?;
    let now = Time::now();
    show(&Page {
        f: Frame::live(&w, &seat, "Mirrors", "/ui/mirrors").await,
        what: "mirrors",
        make: "provision mirror build --image IMAGE",
        things: good.iter().map(|m| mirror(m, now)).collect(),
        bad: bad.into_iter().map(|why| Bad { name: "a mirror".to_owned(), why }).collect(),
    })
}
