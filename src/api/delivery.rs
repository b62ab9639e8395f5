//! `/v1/metrics/…`: how well software and machines are delivered, computed
//! from the whole event log at each request (M45, M46).

use super::events::parse_since;
use super::problem::Query;
use super::{Caller, Clerk, Problem};
use crate::metrics::{Machines, ProfileNumbers, Software, SoftwareNumbers, Window};
use crate::model::{Event, Time};
use crate::store::EventQuery;
use axum::Json as Out;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Events read at a time.
const PAGE: usize = 1000;
/// What is counted when nothing else is asked for.
const USUAL: &str = "30d";

/// What is asked for.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// A time, or how long ago: `30d`.
    #[param(
        example = "30d",
        pattern = "^([1-9][0-9]{0,2}[smhd]|20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3])(:[0-5][0-9]){2}Z)$"
    )]
    since: Option<String>,
    /// The same; now, if not given.
    #[param(
        example = "1h",
        pattern = "^([1-9][0-9]{0,2}[smhd]|20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])T([01][0-9]|2[0-3])(:[0-5][0-9]){2}Z)$"
    )]
    until: Option<String>,
}

/// Numbers of a time.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Numbers<T> {
    /// First instant that counts.
    #[schema(value_type = String, format = DateTime)]
    pub since: Time,
    /// First instant that does not count any more.
    #[schema(value_type = String, format = DateTime)]
    pub until: Time,
    /// By name or profile.
    pub items: Vec<T>,
}

pub(super) fn window(w: &Wanted, now: Time) -> Result<Window, Problem> {
    let since = parse_since(w.since.as_deref().unwrap_or(USUAL), now)?;
    let until = w.until.as_deref().map_or(Ok(now), |u| parse_since(u, now));
    let until = until.map_err(|p| Problem { field: Some("until".into()), ..p })?;
    if since >= until {
        return Err(
            Problem::unfit(format!("since ({since}) must be before until ({until})")).at("since")
        );
    }
    Ok(Window { since, until })
}

/// Gives all events to `take`, in order, a page at a time.
async fn each<C: Clerk>(ctx: &C, mut take: impl FnMut(&Event)) -> Result<(), Problem> {
    let mut after = 0;
    loop {
        let q = EventQuery { after: Some(after), limit: PAGE, ..EventQuery::default() };
        let page = ctx.store().query(&q).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.seq;
        page.iter().for_each(&mut take);
    }
}

/// By image name.
#[utoipa::path(
    get,
    path = "/v1/metrics/software",
    tag = "metrics",
    params(Wanted),
    responses((status = 200, description = "Numbers of a time", body = Numbers<SoftwareNumbers>))
)]
pub(super) async fn software<C: Clerk>(
    _: Caller,
    State(ctx): State<Arc<C>>,
    Query(w): Query<Wanted>,
) -> Result<Out<Numbers<SoftwareNumbers>>, Problem> {
    let w = window(&w, Time::now())?;
    let mut fold = Software::new(w);
    each(&*ctx, |e| fold.take(e)).await?;
    Ok(Out(Numbers { since: w.since, until: w.until, items: fold.numbers() }))
}

/// By profile.
#[utoipa::path(
    get,
    path = "/v1/metrics/profiles",
    tag = "metrics",
    params(Wanted),
    responses((status = 200, description = "Numbers of a time", body = Numbers<ProfileNumbers>))
)]
pub(super) async fn profiles<C: Clerk>(
    _: Caller,
    State(ctx): State<Arc<C>>,
    Query(w): Query<Wanted>,
) -> Result<Out<Numbers<ProfileNumbers>>, Problem> {
    let w = window(&w, Time::now())?;
    let mut fold = Machines::new(w);
    each(&*ctx, |e| fold.take(e)).await?;
    Ok(Out(Numbers { since: w.since, until: w.until, items: fold.numbers() }))
}
