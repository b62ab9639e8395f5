//! `GET /v1/follow`: whom this server follows, and how far behind it is. The
//! same in a line for `/readyz` and in numbers for `/metrics`.

use super::Desk;
use crate::api::{Caller, Problem, demand};
use crate::auth::Role;
use crate::metrics::Exposition;
use crate::model::Time;
use crate::registry::follow::{Follower, Status};
use axum::Json as Out;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Nodes' certificates that the leader signed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FollowedCertificates {
    /// When they were last all known here.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_success: Option<Time>,
    /// How many.
    pub known: u64,
    /// Why they are not known now.
    pub problem: Option<String>,
}

/// Whom this server follows.
pub struct Following {
    /// `https://HOST:PORT`.
    pub leader: String,
    /// Which repositories.
    pub repositories: Vec<String>,
    /// Between two looks.
    pub every: Duration,
    /// Images, unless certificates alone are followed.
    pub images: Option<Arc<Follower>>,
    certificates: Mutex<FollowedCertificates>,
}

/// How it goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShownFollow {
    /// `https://HOST:PORT`.
    pub leader: String,
    /// Which repositories; empty when images are not followed.
    pub repositories: Vec<String>,
    /// Seconds between two looks.
    pub interval_seconds: u64,
    /// Seconds since all was here as the leader had it; none before the first
    /// time.
    pub lag_seconds: Option<u64>,
    /// Why all is not here now.
    pub problem: Option<String>,
    /// Nodes' certificates.
    pub certificates: FollowedCertificates,
    /// Images.
    pub images: Option<Status>,
}

impl Following {
    /// Nothing was asked yet.
    pub fn new(
        leader: &str,
        repositories: Vec<String>,
        every: Duration,
        images: Option<Arc<Follower>>,
    ) -> Self {
        let (leader, certificates) = (leader.to_owned(), Mutex::default());
        Self { leader, repositories, every, images, certificates }
    }

    /// How asking for certificates ended.
    pub fn certificates_followed(&self, known: Result<u64, String>) {
        let mut c = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        match known {
            Ok(n) => {
                *c = FollowedCertificates {
                    last_success: Some(Time::now()),
                    known: n,
                    problem: None,
                }
            }
            Err(why) => c.problem = Some(why),
        }
    }

    /// Why all is not here now.
    pub fn problem(&self) -> Option<String> {
        self.shown().problem
    }

    /// How it goes.
    pub fn shown(&self) -> ShownFollow {
        let certificates = self.certificates.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let images = self.images.as_ref().map(|f| f.status());
        let last = match &images {
            // The older of the two: then both were here.
            Some(i) => i.last_success.and_then(|i| certificates.last_success.map(|c| i.min(c))),
            None => certificates.last_success,
        };
        let seconds = |t: Time| u64::try_from(Time::now().duration_since(t).as_secs()).unwrap_or(0);
        let mut problem = images.as_ref().and_then(|i| i.problem.clone());
        problem = problem.or_else(|| certificates.problem.clone());
        ShownFollow {
            leader: self.leader.clone(),
            repositories: if images.is_some() { self.repositories.clone() } else { Vec::new() },
            interval_seconds: self.every.as_secs(),
            lag_seconds: last.map(seconds),
            problem,
            certificates,
            images,
        }
    }

    /// A line for `/readyz`: a follower without its leader is ready, and says
    /// what it may lack.
    pub(super) fn line(&self) -> String {
        let s = self.shown();
        let lag = match s.lag_seconds {
            Some(n) => format!("all was here {n} s ago"),
            None => "not all was here yet".to_owned(),
        };
        match s.problem {
            Some(p) => format!("follows {}: {lag}; now: {p}\n", s.leader),
            None => format!("follows {}: {lag}\n", s.leader),
        }
    }

    /// For Prometheus.
    pub(super) fn metrics(&self, e: &mut Exposition) {
        let s = self.shown();
        let i = s.images.unwrap_or_default();
        let up = s.problem.is_none() && s.lag_seconds.is_some();
        e.gauge("provision_follow_up", "Whether all is here as the leader has it.", up);
        if let Some(lag) = s.lag_seconds {
            let help = "Seconds since all was here as the leader had it.";
            e.gauge("provision_follow_lag_seconds", help, lag);
        }
        let behind = i.behind.len() as u64 + i.more_behind;
        e.gauge("provision_follow_behind_tags", "Tags of the leader that are not here.", behind);
        for (name, help, n) in [
            ("failures_total", "Passes that did not bring all.", i.failures),
            ("fetched_bytes_total", "Bytes that came from the leader.", i.fetched_bytes),
            (
                "resumed_bytes_total",
                "Bytes that did not have to come again after a break.",
                i.resumed_bytes,
            ),
        ] {
            e.counter(&format!("provision_follow_{name}"), help, n);
        }
    }
}

/// Whom this server follows, and how far behind it is.
#[utoipa::path(
    get,
    path = "/v1/follow",
    tag = "registry",
    responses((status = 200, description = "How it goes", body = ShownFollow))
)]
pub(super) async fn show(
    caller: Caller,
    State(desk): State<Arc<Desk>>,
) -> Result<Out<ShownFollow>, Problem> {
    demand(&*desk, &caller, Role::Read, "reading whom this server follows").await?;
    match &desk.following {
        Some(f) => Ok(Out(f.shown())),
        None => Err(Problem::not_found(
            "this server follows nobody: [follow] in its configuration would say whom",
        )),
    }
}
