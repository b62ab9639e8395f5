//! Machines by profile, from the build server's log (M45, M46).
//!
//! | number | what it is |
//! |---|---|
//! | deployments | installs that ended verified |
//! | lead time | from the order to the verified node |
//! | change failure rate | installs that failed, of all that ended; those given up by request are none |
//! | recovery | from a failed install to the next verified one of that node, whatever its profile; it counts for the profile that failed |

use super::{Spread, Window, share};
use crate::model::{Event, NodeName, Time};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// The numbers of one profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ProfileNumbers {
    /// Profile.
    pub profile: String,
    /// Installs that ended verified.
    pub deployments: usize,
    /// The same, a day.
    pub deployments_per_day: f64,
    /// Seconds from the order to the verified node.
    pub lead_time: Spread,
    /// Installs that failed.
    pub failed: usize,
    /// Of those that ended, 0 to 1.
    pub change_failure_rate: f64,
    /// Seconds, of what has recovered.
    pub time_to_recover: Spread,
    /// Nodes that failed and are not well again.
    pub down: usize,
}

#[derive(Debug, Default)]
struct Profile {
    leads: Vec<f64>,
    failed: usize,
    recovered: Vec<f64>,
}

/// An install under way.
#[derive(Debug)]
struct Order {
    at: Time,
    profile: String,
}

/// The fold; see the module.
#[derive(Debug)]
pub struct Machines {
    window: Window,
    /// By build.
    orders: HashMap<String, Order>,
    profiles: BTreeMap<String, Profile>,
    /// Failed since, with which profile.
    down: BTreeMap<NodeName, (Time, String)>,
}

impl Machines {
    /// Nothing read yet.
    pub fn new(window: Window) -> Self {
        Self { window, orders: HashMap::new(), profiles: BTreeMap::new(), down: BTreeMap::new() }
    }

    /// Reads the next event of the log.
    pub fn take(&mut self, event: &Event) {
        let e = &event.event;
        if e.at >= self.window.until {
            return;
        }
        let Some(build) = e.detail.get("build") else {
            if let ("node.remove", Some(node)) = (e.action.as_str(), &e.node) {
                self.down.remove(node);
            }
            return;
        };
        match e.action.as_str() {
            "install.request" => {
                let profile = e.detail.get("profile").cloned().unwrap_or_default();
                self.orders.insert(build.clone(), Order { at: e.at, profile });
            }
            "install.cancelled" => drop(self.orders.remove(build)),
            action @ ("install.deployed" | "install.failed") => {
                let (Some(order), Some(node)) = (self.orders.remove(build), &e.node) else {
                    return;
                };
                self.ended(action == "install.deployed", &order, node, e.at);
            }
            _ => {}
        }
    }

    fn ended(&mut self, well: bool, order: &Order, node: &NodeName, at: Time) {
        let counts = self.window.holds(at);
        if well && let Some((failed, profile)) = self.down.remove(node) {
            let p = self.profiles.entry(profile).or_default();
            if counts {
                p.recovered.push(at.duration_since(failed).as_secs_f64());
            }
        }
        let p = self.profiles.entry(order.profile.clone()).or_default();
        match (well, counts) {
            (true, true) => p.leads.push(at.duration_since(order.at).as_secs_f64()),
            (true, false) => {}
            (false, _) => {
                p.failed += usize::from(counts);
                // A second failure does not make the node well in between.
                self.down.entry(node.clone()).or_insert((at, order.profile.clone()));
            }
        }
    }

    /// All profiles, in order.
    pub fn numbers(self) -> Vec<ProfileNumbers> {
        let days = self.window.days();
        let down = self.down;
        let numbers = self.profiles.into_iter().map(|(profile, p)| {
            let deployments = p.leads.len();
            #[expect(clippy::cast_precision_loss, reason = "counts of events are far below 2^52")]
            let per_day = if days > 0.0 { deployments as f64 / days } else { 0.0 };
            ProfileNumbers {
                deployments,
                deployments_per_day: per_day,
                lead_time: Spread::of(p.leads),
                failed: p.failed,
                change_failure_rate: share(p.failed, deployments + p.failed),
                time_to_recover: Spread::of(p.recovered),
                down: down.values().filter(|(_, of)| *of == profile).count(),
                profile,
            }
        });
        numbers.collect()
    }
}
