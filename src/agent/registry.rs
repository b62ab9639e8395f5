//! The node's certificate for the registry. Its key is made here and goes
//! nowhere else; the certificate is signed against the build's token during
//! the install, and renewed by showing it in the last third of its life.

use super::journal::say;
use super::server::{PATIENCE, Server};
use super::target::{Kind, Target};
use super::{AgentError, InPhase, workload};
use crate::model::Phase;
use crate::model::Time;
use crate::model::plan::{CertificateRequest, RegistryPlan, SignedCertificate};
use crate::tls::{ca, write_private};
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

/// Where the engine looks for certificates, by registry.
const CERTS: &str = "/etc/docker/certs.d";

/// Renews daily, at a time of day that differs from node to node.
const TIMER: &str = "[Unit]
Description=Renews this node's certificate for the registry

[Timer]
OnCalendar=daily
RandomizedDelaySec=12h
Persistent=true

[Install]
WantedBy=timers.target
";

const SERVICE: &str = "[Unit]
Description=Renews this node's certificate for the registry
After=network-online.target
Wants=network-online.target

[Service]
Type=oneshot
ExecStart=/usr/lib/provision/provision-agent renew
";

/// Makes the key, has it signed, and puts all where the engine finds it.
pub fn enrol(
    target: &mut Target,
    node: &str,
    registry: &RegistryPlan,
    server: &Server,
) -> Result<(), AgentError> {
    let phase = Phase::Profile;
    let (key, csr) = ca::request(node).in_phase(phase, "key for the registry")?;
    let signed: SignedCertificate = server
        .post_get("/node/certificate", &CertificateRequest { csr }, PATIENCE)
        .map_err(|e| e.in_phase(phase))?;
    let dir = format!("{CERTS}/{}", registry.host);
    let files = [
        ("ca.crt", 0o644, &signed.ca),
        ("client.cert", 0o644, &signed.certificate),
        ("client.key", 0o600, &key),
    ];
    for (name, mode, text) in files {
        let path = format!("{dir}/{name}");
        target.write(&path, mode, Kind::Identity, text).in_phase(phase, &path)?;
    }
    let units = "/etc/systemd/system";
    for (name, text, wanted) in [
        ("provision-certificate.timer", TIMER, Some("timers")),
        ("provision-certificate.service", SERVICE, None),
        ("provision-workload.service", workload::UNIT, Some("multi-user")),
    ] {
        let path = format!("{units}/{name}");
        target.write(&path, 0o644, Kind::Common, text).in_phase(phase, &path)?;
        if let Some(by) = wanted {
            let link = format!("{units}/{by}.target.wants/{name}");
            target.link(&link, &path).in_phase(phase, &link)?;
        }
    }
    say(format_args!("certificate for {} until {}", registry.host, signed.expires));
    Ok(())
}

/// `provision-agent renew [--now]` on the installed node: renews what is in
/// the last third of its life.
pub fn renew(now: bool) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for dir in registries() {
        match renew_in(&dir, now) {
            Ok(text) => println!("{}: {text}", dir.display()),
            Err(why) => {
                eprintln!("{}: {why}", dir.display());
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

fn renew_in(dir: &Path, now: bool) -> Result<String, String> {
    let read = |name: &str| {
        let path = dir.join(name);
        fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))
    };
    let cert = read("client.cert")?;
    let (from, to) = ca::validity(&cert).ok_or("client.cert is no certificate")?;
    if !now && !is_due(from, to, Time::now()) {
        return Ok(format!("good until {to}"));
    }
    let (new_key, csr) = ca::request("node").map_err(|e| e.to_string())?;
    let registry = Registry::open(dir).map_err(|e| e.to_string())?;
    let answer = registry
        .post("/v1/certificates/renew", &CertificateRequest { csr })
        .map_err(|e| e.to_string())?;
    let signed: SignedCertificate =
        serde_json::from_str(&answer).map_err(|e| format!("{}: {e}", dir.display()))?;
    put_pair(dir, &signed.certificate, &new_key)?;
    Ok(format!("renewed until {}", signed.expires))
}

/// In the last third of its life.
fn is_due(from: Time, to: Time, now: Time) -> bool {
    let life = to.duration_since(from);
    now.duration_since(from).as_secs() * 3 >= life.as_secs() * 2
}

/// Key and certificate change together: the engine reads both at each pull,
/// so the time in which they do not fit is one rename long.
fn put_pair(dir: &Path, cert: &str, key: &str) -> Result<(), String> {
    let at = |name: &str| -> PathBuf { dir.join(name) };
    write_private(&at("client.cert.next"), cert.as_bytes()).map_err(|e| e.to_string())?;
    write_private(&at("client.key.next"), key.as_bytes()).map_err(|e| e.to_string())?;
    for name in ["client.cert", "client.key"] {
        fs::rename(at(&format!("{name}.next")), at(name)).map_err(|e| format!("{name}: {e}"))?;
    }
    fs::File::open(dir).and_then(|d| d.sync_all()).map_err(|e| e.to_string())
}

/// Directories with a registry's certificates, as the engine has them.
pub fn registries() -> Vec<PathBuf> {
    let entries = fs::read_dir(CERTS).into_iter().flatten().filter_map(Result::ok);
    entries.map(|e| e.path()).filter(|d| d.join("client.key").exists()).collect()
}

/// Why the registry's server did not do what was asked.
#[derive(Debug)]
pub struct Refused {
    /// What it answered, if it did.
    pub status: Option<u16>,
    why: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.why)
    }
}

/// A registry's server, to which this node shows its certificate.
pub struct Registry {
    host: String,
    http: ureq::Agent,
}

impl Registry {
    /// With the certificates in `dir`, which is named by host and port.
    ///
    /// # Errors
    /// Files that are not there or not what they should be.
    pub fn open(dir: &Path) -> Result<Self, Refused> {
        let text = |e: &dyn std::fmt::Display| Refused { status: None, why: e.to_string() };
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read(&path).map_err(|e| text(&format_args!("{}: {e}", path.display())))
        };
        let host = dir.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        let chain = Certificate::from_pem(&read("client.cert")?).map_err(|e| text(&e))?.to_owned();
        let key = PrivateKey::from_pem(&read("client.key")?).map_err(|e| text(&e))?;
        let roots = Certificate::from_pem(&read("ca.crt")?).map_err(|e| text(&e))?.to_owned();
        let tls = TlsConfig::builder()
            .client_cert(Some(ClientCert::new_with_certs(&[chain], key)))
            .root_certs(RootCerts::from(vec![roots]))
            .unversioned_rustls_crypto_provider(crate::tls::provider())
            .build();
        let http = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .timeout_global(Some(Duration::from_secs(60)))
            .tls_config(tls)
            .build()
            .new_agent();
        Ok(Self { host, http })
    }

    /// `POST path` with a JSON body; the answer's text.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub fn post(&self, path: &str, body: &impl Serialize) -> Result<String, Refused> {
        let host = &self.host;
        let failed =
            |e: ureq::Error| Refused { status: None, why: format!("https://{host}{path}: {e}") };
        let mut answer =
            self.http.post(format!("https://{host}{path}")).send_json(body).map_err(failed)?;
        let status = answer.status();
        let text =
            answer.body_mut().with_config().limit(1 << 20).read_to_string().map_err(failed)?;
        if !status.is_success() {
            let first: String = text.chars().take(300).collect();
            let why = format!("{host} answered {status}: {first}");
            return Err(Refused { status: Some(status.as_u16()), why });
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_in_the_last_third_of_its_life() {
        let at = |s: i64| Time::from_second(1_000_000 + s).unwrap();
        assert!(!is_due(at(0), at(900), at(599)));
        assert!(is_due(at(0), at(900), at(600)));
        assert!(is_due(at(0), at(900), at(5000)), "also when it is over");
    }
}
