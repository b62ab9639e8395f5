//! What can be ordered: an install, power, giving an operation up. What
//! cannot be taken back is asked first, on a page that names the machine and
//! its disk; the order itself goes through `api`, with its checks and its
//! events.

use super::Window;
use super::dress::Fault;
use super::frame::{Frame, show};
use super::session::{Posted, Seat};
use super::view::confirm::{self, Choice, Confirm};
use crate::api::install::InstallRequest;
use crate::api::operations::who_cancels;
use crate::api::{Problem, demand, window};
use crate::auth::Role;
use crate::model::{Node, OperationId, Time};
use crate::power::PowerCommand;
use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use std::sync::Arc;

#[derive(Template)]
#[template(path = "confirm.html")]
struct Page {
    f: Frame,
    v: Confirm,
    form: String,
}

fn ask(w: &Window, seat: &Seat, v: Confirm) -> Result<Response, Fault> {
    let form = seat.who(w).form;
    show(&Page { f: Frame::still(w, seat, &v.title, "/ui/"), v, form })
}

fn find(w: &Window, n: &str) -> Result<Arc<Node>, Fault> {
    Ok(w.ctx.rack.view().inventory.find(n)?.clone())
}

/// Refuses what was confirmed of another machine than the one that is there.
fn must_be_as_seen(p: &Posted, node: &Node) -> Result<(), Fault> {
    if p.field("seen") == Some(confirm::seen(node).as_str()) {
        return Ok(());
    }
    let why = format!(
        "{} is not what it was when the confirmation was shown (its disk, its state or what is on \
         it has changed); nothing was done: look at it again",
        node.spec.name
    );
    Err(Problem::new(StatusCode::CONFLICT, why).into())
}

/// What was chosen on the node's page.
#[derive(Deserialize)]
pub(super) struct Chosen {
    #[serde(default)]
    profile: String,
    #[serde(default)]
    image: String,
    #[serde(default)]
    mirror: String,
}

pub(super) async fn ask_install(
    seat: Seat,
    State(w): State<Arc<Window>>,
    Path(n): Path<String>,
    Query(c): Query<Chosen>,
) -> Result<Response, Fault> {
    demand(&*w.ctx, &seat.caller, Role::Controller, "installing").await?;
    let node = find(&w, &n)?;
    let profile = c.profile.parse().map_err(|_| {
        let why = "no profile was chosen: choose one on the node's page";
        Problem::new(StatusCode::BAD_REQUEST, why)
    })?;
    let image = match c.image.as_str() {
        "" => w.ctx.config.install.image.clone(),
        i => i.parse().map_err(|e| Problem::bad(format!("{e}")))?,
    };
    let (profiles, images) = (w.ctx.profiles.clone(), w.ctx.images.clone());
    // What cannot be had is said before it is asked for.
    w.ctx.rack.must_be_fit(&node.spec.name).map_err(Problem::from)?;
    let read = tokio::task::spawn_blocking(move || {
        Ok::<_, Problem>((profiles.get(&profile)?.name, images.get(&image)?.name))
    });
    let (profile, image) = read.await.map_err(|e| Problem::internal(e.to_string()))??;
    let choice =
        Choice { profile: profile.to_string(), image: image.to_string(), mirror: c.mirror };
    ask(&w, &seat, confirm::install(&node, &choice, Time::now()))
}

pub(super) async fn install(
    State(w): State<Arc<Window>>,
    Path(n): Path<String>,
    p: Posted,
) -> Result<Response, Fault> {
    let node = find(&w, &n)?;
    let name = node.spec.name.as_str();
    let text = |name| p.field(name).map(str::to_owned);
    let what = InstallRequest {
        profile: text("profile").unwrap_or_default(),
        image: text("image"),
        mirror: text("mirror"),
    };
    demand(&*w.ctx, &p.seat.caller, Role::Controller, "installing").await?;
    must_be_as_seen(&p, &node)?;
    window::install(&w.ctx, &p.seat.caller, name, what).await?;
    Ok(to_node(name))
}

fn to_node(name: &str) -> Response {
    Redirect::to(&format!("/ui/nodes/{name}")).into_response()
}

/// Which power command.
#[derive(Deserialize)]
pub(super) struct Switch {
    #[serde(default)]
    command: String,
}

fn command(text: &str) -> Result<PowerCommand, Fault> {
    match text.parse() {
        Ok(PowerCommand::Status) | Err(_) => {
            let why = format!("{text:?} is not a power command: use on, off or cycle");
            Err(Problem::bad(why.chars().take(200).collect::<String>()).into())
        }
        Ok(c) => Ok(c),
    }
}

pub(super) async fn ask_power(
    seat: Seat,
    State(w): State<Arc<Window>>,
    Path(n): Path<String>,
    Query(s): Query<Switch>,
) -> Result<Response, Fault> {
    demand(&*w.ctx, &seat.caller, Role::Controller, "power").await?;
    let node = find(&w, &n)?;
    ask(&w, &seat, confirm::power(&node, command(&s.command)?, Time::now()))
}

pub(super) async fn power(
    State(w): State<Arc<Window>>,
    Path(n): Path<String>,
    p: Posted,
) -> Result<Response, Fault> {
    let node = find(&w, &n)?;
    let name = node.spec.name.as_str();
    demand(&*w.ctx, &p.seat.caller, Role::Controller, "power").await?;
    let command = command(p.field("command").unwrap_or_default())?;
    // Giving power takes nothing away: it is not asked.
    if command != PowerCommand::On {
        must_be_as_seen(&p, &node)?;
    }
    window::power(&w.ctx, &p.seat.caller, name, &command.to_string()).await?;
    Ok(to_node(name))
}

pub(super) async fn ask_cancel(
    seat: Seat,
    State(w): State<Arc<Window>>,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    demand(&*w.ctx, &seat.caller, who_cancels(&w.ctx, &id), "cancelling").await?;
    let unknown = || Problem::not_found(format!("there is no operation {id:?}"));
    let wanted: OperationId = id.parse().map_err(|_| unknown())?;
    let o = w.ctx.rack.view().operations.get(&wanted).cloned().ok_or_else(unknown)?;
    if o.state.is_final() {
        let why = format!("operation {id} has ended already");
        return Err(Problem::new(StatusCode::CONFLICT, why).into());
    }
    ask(&w, &seat, confirm::cancel(&o))
}

pub(super) async fn cancel(
    State(w): State<Arc<Window>>,
    Path(id): Path<String>,
    p: Posted,
) -> Result<Response, Fault> {
    window::cancel(&w.ctx, &p.seat.caller, &id).await?;
    let id: OperationId = id.parse().map_err(|e| Problem::bad(format!("{e}")))?;
    let node = w.ctx.rack.view().operations.get(&id).and_then(|o| o.node.clone());
    Ok(node.map_or_else(|| Redirect::to("/ui/operations").into_response(), |n| to_node(n.as_str())))
}
