//! `/v1/metrics/phases`: how long each phase of an install takes, by profile
//! and hardware model, and which one is the bottleneck (M47). Computed from the
//! records of builds at each request.

use super::delivery::{Numbers, Wanted, window};
use super::problem::Query;
use super::{Caller, Ctx, Problem};
use crate::metrics::{PhaseNumbers, Phases};
use crate::model::{Build, NodeName, Time};
use axum::Json as Out;
use axum::extract::State;
use std::collections::HashMap;
use std::sync::Arc;

/// By profile, by hardware model, and by both.
#[utoipa::path(
    get,
    path = "/v1/metrics/phases",
    tag = "metrics",
    params(Wanted),
    responses((status = 200, description = "Numbers of a time", body = Numbers<PhaseNumbers>))
)]
pub(super) async fn list(
    _: Caller,
    State(ctx): State<Arc<Ctx>>,
    Query(w): Query<Wanted>,
) -> Result<Out<Numbers<PhaseNumbers>>, Problem> {
    let w = window(&w, Time::now())?;
    let mut fold = Phases::new(w);
    // Copied, so that nothing waits for the sums.
    let (builds, models): (Vec<Arc<Build>>, HashMap<NodeName, String>) = {
        let v = ctx.rack.view();
        let model = |n: &Arc<crate::model::Node>| {
            Some((n.spec.name.clone(), n.status.facts.as_ref()?.hardware.clone()))
        };
        let counts = v.builds.values().filter(|b| fold.wants(b));
        (counts.cloned().collect(), v.inventory.all().filter_map(model).collect())
    };
    let work = move || {
        for b in builds {
            fold.take(&b, models.get(&b.node).map(String::as_str));
        }
        fold.numbers()
    };
    let items = tokio::task::spawn_blocking(work).await;
    let items = items.map_err(|e| Problem::internal(e.to_string()))?;
    Ok(Out(Numbers { since: w.since, until: w.until, items }))
}
