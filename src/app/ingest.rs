//! The ingest pipeline and the webhooks, as the configuration wants them.

use crate::api::deployment::hooks::{Configured, Hooks};
use crate::config::deployment::Deployment;
use crate::config::ingest::{BuilderConfig, HookConfig, HookKind};
use crate::ingest::PipelineSettings;
use crate::ingest::context::git::Protocol;
use crate::ingest::settings::{BuilderChoice, Remote};
use crate::ingest::webhook::{Forge, Hook};
use crate::model::Secret;
use anyhow::{Context, Result, bail};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Shortest secret, in bytes.
const SHORTEST: usize = 16;

/// The pipeline's settings; `hosts` are the registry's own names.
///
/// # Errors
/// The state directory.
pub fn settings(c: &Deployment, hosts: Vec<String>) -> Result<PipelineSettings> {
    let mut s = PipelineSettings::new(std::path::absolute(c.state_dir.join("ingest"))?);
    // Beside the other keys, where a backup takes it along.
    s.signing_key = c.state_dir.join("attestation.key");
    s.registry_hosts = hosts;
    s.at_once = c.ingest_at_once as usize;
    s.deadline = c.ingest_limit;
    s.allow_network = c.ingest_network;
    s.builder = match c.ingest.builder {
        BuilderConfig::Auto => BuilderChoice::Auto,
        BuilderConfig::Buildah => BuilderChoice::Buildah,
        BuilderConfig::Docker => BuilderChoice::Docker,
    };
    s.docker_host = c.ingest.docker_host.clone();
    if c.ingest.git.http {
        s.git.protocols.push(Protocol::Http);
    }
    s.git.credentials = c.ingest.git.credentials.clone();
    s.git.ssh_key = c.ingest.git.ssh_key.clone();
    let named = c.ingest.hooks.iter().flat_map(|h| &h.repositories);
    s.git.local = named.filter(|r| r.starts_with("file:")).cloned().collect();
    let remote = |i: &crate::config::ingest::ImportConfig| Remote {
        prefix: i.prefix.clone(),
        certificates: i.certificates.clone(),
        auth_file: i.auth_file.clone(),
    };
    s.remotes = c.ingest.import.iter().map(remote).collect();
    Ok(s)
}

/// The webhooks, with their secrets.
///
/// # Errors
/// A secret's file, with what would be right.
pub fn hooks(c: &Deployment) -> Result<Hooks> {
    let one = |h: &HookConfig| -> Result<(String, Configured)> {
        let secret = secret(&h.secret_file).with_context(|| format!("webhook {}", h.name))?;
        let forge = match h.kind {
            HookKind::Github => Forge::Github,
            HookKind::Gitlab => Forge::Gitlab,
            HookKind::Gitea => Forge::Gitea,
            HookKind::Git => Forge::Git,
        };
        let hook = Hook {
            forge,
            secret,
            repositories: h.repositories.clone(),
            branches: h.branches.clone(),
            tags: h.tags.clone(),
        };
        Ok((h.name.clone(), Configured { hook, image: h.image.clone(), tag: h.tag.clone() }))
    };
    Ok(Hooks::new(c.ingest.hooks.iter().map(one).collect::<Result<_>>()?))
}

fn secret(path: &Path) -> Result<Secret> {
    let at = || path.display().to_string();
    let mode = path.metadata().with_context(at)?.permissions().mode();
    if mode & 0o077 != 0 {
        bail!("{}: mode is {:o}; others may read it: chmod 600", at(), mode & 0o777);
    }
    let text = std::fs::read_to_string(path).with_context(at)?;
    let text = text.trim();
    if text.len() < SHORTEST {
        bail!("{}: a secret has at least {SHORTEST} characters: openssl rand -hex 32", at());
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_others_may_read_or_guess_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("s");
        let write = |text: &str, mode: u32| {
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
            secret(&file).map_err(|e| e.to_string())
        };
        assert_eq!(write("0123456789abcdef\n", 0o600).unwrap().expose(), "0123456789abcdef");
        assert!(write("0123456789abcdef", 0o640).unwrap_err().contains("chmod 600"));
        assert!(write("short", 0o600).unwrap_err().contains("at least 16"));
    }
}
