//! Power for nodes: BMCs opened with their stored passwords, and the arming
//! of an install.

use crate::api::Bmcs;
use crate::auth::MasterKey;
use crate::auth::seal::Sealed;
use crate::lifecycle::{Arm, Armed};
use crate::model::{BmcSpec, Node, NodeName};
use crate::power::{self, Limits, PowerControl, PowerError, PowerState};
use crate::store::{Store, kind};
use async_trait::async_trait;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// What the BMC was when it was opened, and the way to it.
type Handle = (BmcSpec, Arc<dyn PowerControl>);

/// See the module.
pub struct StoredBmcs {
    store: Arc<dyn Store>,
    key: Arc<MasterKey>,
    /// For one arming, tries included.
    limit: Duration,
    counts: Arc<power::Counts>,
    open: Mutex<HashMap<NodeName, Handle>>,
}

impl StoredBmcs {
    /// `limit` bounds one arming; calls of BMCs are counted in `counts`.
    pub fn new(
        store: Arc<dyn Store>,
        key: Arc<MasterKey>,
        limit: Duration,
        counts: Arc<power::Counts>,
    ) -> Self {
        Self { store, key, limit, counts, open: Mutex::default() }
    }

    async fn arm(&self, bmc: &dyn PowerControl, node: &Node) -> Result<String, PowerError> {
        let armed = power::arm_network_boot(bmc, node.effective_firmware()).await?;
        let how = match bmc.status().await? {
            PowerState::Off => {
                bmc.on().await?;
                "was off, switched on"
            }
            PowerState::On => {
                bmc.cycle().await?;
                "was on, cycled"
            }
        };
        // Some BMCs acknowledge and do nothing, and most take a moment.
        for _ in 0..10 {
            if bmc.status().await? == PowerState::On {
                let doubt = armed.doubt.as_ref().map(|d| format!(" ({d})")).unwrap_or_default();
                return Ok(format!("boot device {}{doubt}; {how}", armed.shown));
            }
            sleep(Duration::from_secs(1)).await;
        }
        Err(PowerError::Protocol {
            bmc: bmc.bmc(),
            what: "took the power command, but the machine stays off".into(),
        })
    }
}

#[async_trait]
impl Bmcs for StoredBmcs {
    async fn open(&self, node: &Node) -> Result<Arc<dyn PowerControl>, String> {
        let name = &node.spec.name;
        let spec = node.spec.bmc.as_ref().ok_or_else(|| format!("{name} has no BMC"))?;
        let known = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        // A handle on another address could cycle another machine.
        if let Some((of, bmc)) = known
            && of == *spec
        {
            return Ok(bmc);
        }
        let key = format!("bmc/{name}");
        let doc = self.store.get(kind::SECRET, &key).await.map_err(|e| e.to_string())?;
        let password = match doc {
            Some(d) => {
                let sealed: Sealed = serde_json::from_value(d.value).map_err(|e| e.to_string())?;
                self.key.open_sealed(&key, &sealed).map_err(|e| e.to_string())?
            }
            None => {
                return Err(format!(
                    "no BMC password of {name} is stored; give one with \
                     `provision nodes set {name} --bmc-password-file FILE`"
                ));
            }
        };
        let bmc = power::connect(spec, password, Limits::default());
        let bmc: Arc<dyn PowerControl> = Arc::new(power::Counted::new(bmc, self.counts.clone()));
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.clone(), (spec.clone(), bmc.clone()));
        Ok(bmc)
    }

    fn forget(&self, node: &NodeName) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(node);
    }
}

#[async_trait]
impl Arm for StoredBmcs {
    async fn arm_and_power(&self, node: &Node) -> Armed {
        let bmc = match self.open(node).await {
            Ok(b) => b,
            // The store may only be away; a password that is missing fails
            // again at the next attempt, with the same words.
            Err(reason) => return Armed::Failed { reason, again: true },
        };
        let end = Instant::now() + self.limit;
        let mut pause = Duration::from_secs(1);
        loop {
            let failed = match timeout_at(end, self.arm(&*bmc, node)).await {
                Ok(Ok(how)) => return Armed::Done(how),
                Ok(Err(e)) => e,
                Err(_) => PowerError::Deadline { bmc: bmc.bmc(), within: self.limit },
            };
            let again = failed.is_passing();
            if !again || Instant::now() + pause >= end {
                return Armed::Failed { reason: failed.to_string(), again };
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(10));
        }
    }
}
