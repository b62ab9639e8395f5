//! From the plan of an install to what the templates are told.

use super::values::{Disk, InvalidValue, Mirror, ProfileScripts, Security, Values};
use crate::model::Secret;
use crate::model::plan::InstallPlan;

/// What is not in the plan: known when an installer asks, or too secret to be
/// kept in the record.
#[derive(Debug, Clone)]
pub struct Around {
    /// Base address of the boot network's HTTP, such as `http://10.0.0.1:8080`.
    pub server: String,
    /// Token of the build.
    pub token: Secret,
    /// Whether the firmware that asks is UEFI.
    pub uefi: bool,
    /// Hash of the user's password.
    pub password_hash: Option<String>,
    /// Text of `/etc/provision/agent.json`.
    pub agent_config: String,
    /// Text of the agent's unit.
    pub agent_unit: String,
}

impl Values {
    /// # Errors
    /// The plan is not one for an installer.
    pub fn of(plan: &InstallPlan, around: Around) -> Result<Values, InvalidValue> {
        let missing = |what| InvalidValue::hidden(what, "in a plan for the installer");
        let installer = plan.installer.as_ref().ok_or_else(|| missing("the installer's part"))?;
        let user = plan.users.first().ok_or_else(|| missing("a user"))?;
        let host = around.server.trim_start_matches("http://").to_owned();
        // Debian's installer appends its own `/debian-security` to the host.
        let security = installer.security.as_deref().and_then(|path| {
            let (parent, last) = path.rsplit_once('/')?;
            let fits = !installer.release.starts_with("debian-") || last == "debian-security";
            let host = format!("{host}{parent}");
            fits.then(|| Security { host, directory: format!("/{last}") })
        });
        Ok(Values {
            node: plan.node.clone(),
            domain: plan.network.domain.clone(),
            address: plan.network.address,
            prefix: plan.network.prefix,
            gateway: plan.network.gateway,
            dns: plan.network.dns.clone(),
            ntp: plan.network.ntp.clone(),
            mac: plan.network.mac,
            uefi: around.uefi,
            disk: Disk::from(&plan.disk),
            mirror: Mirror {
                protocol: "http".into(),
                host: host.clone(),
                directory: installer.directory.clone(),
                suite: installer.suite.clone(),
                udeb_suite: installer.udeb_suite.clone(),
                security,
            },
            user: user.name.clone(),
            password_hash: around.password_hash,
            ssh_keys: user.ssh_keys.clone(),
            timezone: plan.timezone.clone(),
            locale: "en_US.UTF-8".into(),
            keyboard: "us".into(),
            packages: installer.packages.clone(),
            kernel_args: plan.kernel_args.clone(),
            build: plan.build.clone(),
            server: around.server,
            token: around.token,
            profile: ProfileScripts {
                name: plan.profile.name.to_string(),
                scripts: plan.profile.scripts.clone(),
                groups: plan.profile.groups.clone(),
            },
            labels: installer.labels.clone(),
            agent_config: around.agent_config,
            agent_unit: around.agent_unit,
            now: plan.now.as_second(),
            poweroff: false,
        })
    }
}
