//! `/ui/software/images/{reference}`: what is signed about an image, and where
//! it was promoted to. The signatures are checked here, with the key that the
//! deployment server names as its own.

use super::{PROMOTIONS, Unheard, heard, there};
use crate::api::deployment::promote;
use crate::model::Time;
use crate::ui::Window;
use crate::ui::dress::Fault;
use crate::ui::frame::{Frame, show};
use crate::ui::session::Seat;
use crate::ui::view::software::{self, PromotionRow, Statement};
use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use std::sync::Arc;

#[derive(Template)]
#[template(path = "image.html")]
struct Page {
    f: Frame,
    reference: String,
    digest: String,
    statements: Vec<Statement>,
    promotions: Result<Vec<PromotionRow>, Unheard>,
}

pub(in crate::ui) async fn page(
    seat: Seat,
    State(w): State<Arc<Window>>,
    Path(reference): Path<String>,
) -> Result<Response, Fault> {
    let s = there(&w)?;
    // It goes into an address: of the letters that names have, and no others.
    promote::image(&reference)?;
    let (signed, promotions) =
        tokio::join!(heard(s.attestations(&reference)), heard(s.promotions(PROMOTIONS.1)));
    let (signed, now) = (signed?, Time::now());
    let of_it = |e: &crate::model::Event| e.event.detail.get("digest") == Some(&signed.digest);
    let promotions = promotions.map(|all| {
        let own = all.iter().rev().filter(|e| of_it(e));
        own.map(|e| software::promotion(e, now)).collect()
    });
    show(&Page {
        f: Frame::still(&w, &seat, &format!("Image {reference}"), "/ui/software"),
        reference,
        statements: software::statements(&signed, now),
        digest: signed.digest,
        promotions,
    })
}
