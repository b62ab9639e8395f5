//! The docker engine, over its command line. Base images are loaded into it
//! under names of ours that no registry has, and taken out afterwards with the
//! result.

use super::{BuildFailure, Builder, Job, identity_of};
use crate::image::build::Progress;
use crate::image::child::{self, clean_environment};
use crate::ingest::import;
use crate::ingest::run::BuilderIdentity;
use crate::model::Digest;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

/// See the module.
#[derive(Debug, Clone)]
pub struct Docker {
    version: String,
    host: Option<String>,
    kit: Kit,
}

/// How `docker build` builds here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kit {
    /// BuildKit, by the plug-in `buildx`.
    Buildx,
    /// BuildKit, by the command itself: before 23.0 (Debian 12 has 20.10).
    BuiltIn,
    /// The old builder: a newer command without the plug-in.
    Legacy,
}

impl Kit {
    /// `client` is the version of the command.
    fn of(buildx: bool, client: &str) -> Self {
        let major = client.split('.').next().and_then(|n| n.parse::<u32>().ok());
        match (buildx, major) {
            (true, _) => Self::Buildx,
            (false, Some(n)) if n < 23 => Self::BuiltIn,
            (false, _) => Self::Legacy,
        }
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Buildx => &["--progress=plain", "--provenance=false"],
            Self::BuiltIn => &["--progress=plain"],
            Self::Legacy => &[],
        }
    }
}

fn base_name(digest: &Digest) -> String {
    // A host that cannot exist (RFC 2606): nothing is ever pulled from there.
    format!("base.invalid/{}:exact", digest.to_hex())
}

impl Docker {
    /// Looks for the command and an engine that answers.
    pub fn find(host: Option<&str>) -> Result<Self, String> {
        let host = host.map(str::to_owned);
        let mut docker = Self { version: String::new(), host, kit: Kit::Legacy };
        let mut ask =
            docker.command("20", &["version".into(), "--format={{.Server.Version}}".into()]);
        let found = identity_of("docker", &mut ask)
            .ok_or("no docker engine answers here (docker version fails)")?;
        import::identity()?;
        docker.version = found.version;
        let mut ask =
            docker.command("20", &["version".into(), "--format={{.Client.Version}}".into()]);
        let client = identity_of("docker", &mut ask).map(|i| i.version).unwrap_or_default();
        let buildx = docker.command("20", &["buildx".into(), "version".into()]).output();
        docker.kit = Kit::of(buildx.is_ok_and(|o| o.status.success()), &client);
        Ok(docker)
    }

    fn command(&self, within: &str, arguments: &[OsString]) -> Command {
        // Longer than any build: the run's own deadline comes first. For the
        // calls beside it this is what keeps them from waiting for ever.
        let mut command = Command::new("timeout");
        clean_environment(&mut command);
        command.args([within, "docker"]);
        if let Some(host) = &self.host {
            command.args(["--host", host]);
        }
        let kit = if self.kit == Kit::Legacy { "0" } else { "1" };
        command.args(arguments).env("DOCKER_BUILDKIT", kit);
        command
    }

    fn steps(
        &self,
        job: &Job<'_>,
        result: &str,
        progress: &mut dyn Progress,
    ) -> Result<(), BuildFailure> {
        for (layout, digest) in job.bases {
            let file = job.work.join("base.tar");
            let to = format!("docker-archive:{}:{}", file.display(), base_name(digest));
            import::copy(&format!("oci:{}", layout.display()), &to, progress)?;
            let load =
                self.command("3600", &["load".into(), "--input".into(), file.clone().into()]);
            child::run("docker load", load, progress)?;
            std::fs::remove_file(&file).map_err(crate::ingest::context::ContextError::io(&file))?;
        }
        child::run(
            "docker build",
            self.command("86400", &build_arguments(job, result, self.kit)),
            progress,
        )?;
        let file = job.work.join("result.tar");
        let save = ["save".into(), "--output".into(), file.clone().into_os_string(), result.into()];
        child::run("docker save", self.command("3600", &save), progress)?;
        let from = format!("docker-archive:{}", file.display());
        import::copy(&from, &format!("oci:{}", job.out.display()), progress)?;
        Ok(())
    }
}

fn build_arguments(job: &Job<'_>, result: &str, kit: Kit) -> Vec<OsString> {
    let mut all: Vec<OsString> = ["build", "--pull=false", "--force-rm"].map(OsString::from).into();
    all.extend(kit.options().iter().map(OsString::from));
    if !job.network {
        all.push("--network=none".into());
    }
    if let Some(target) = job.target {
        all.push(format!("--target={target}").into());
    }
    all.push(format!("--build-arg=SOURCE_DATE_EPOCH={}", job.epoch).into());
    for (name, value) in job.arguments {
        all.push(format!("--build-arg={name}={value}").into());
    }
    all.extend(["--tag".into(), result.into(), "--file".into(), job.dockerfile.into()]);
    all.push(job.context.into());
    all
}

impl Builder for Docker {
    fn identity(&self) -> BuilderIdentity {
        BuilderIdentity { name: "docker".to_owned(), version: self.version.clone() }
    }

    fn exact(&self, _: &Path, digest: &Digest) -> String {
        base_name(digest)
    }

    fn build(&self, job: &Job<'_>, progress: &mut dyn Progress) -> Result<(), BuildFailure> {
        let result = format!("result.invalid/{}:build", job.id);
        let done = self.steps(job, &result, progress);
        // Whatever happened, the engine keeps nothing of it. Bases stay: their
        // names are their contents, and the next build needs them again.
        let _ = self
            .command("60", &["image".into(), "rm".into(), "--force".into(), result.into()])
            .output();
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_command_says_how_it_builds() {
        assert_eq!(Kit::of(true, "28.2.2"), Kit::Buildx);
        assert_eq!(Kit::of(false, "20.10.24+dfsg1"), Kit::BuiltIn);
        assert_eq!(Kit::of(false, "28.2.2"), Kit::Legacy);
        assert_eq!(Kit::of(false, "unknown"), Kit::Legacy);
    }

    #[test]
    fn the_engine_is_told_to_stay_off_the_network() {
        let arguments = BTreeMap::from([("A".to_owned(), "b c".to_owned())]);
        let mut job = Job {
            id: "x",
            work: Path::new("/w"),
            context: Path::new("/c"),
            dockerfile: Path::new("/d"),
            bases: &[],
            target: Some("t"),
            arguments: &arguments,
            network: false,
            epoch: 7,
            out: Path::new("/o"),
        };
        let text =
            |job: &Job<'_>| build_arguments(job, "r", Kit::Buildx).join(std::ffi::OsStr::new("|"));
        let said = text(&job).into_string().unwrap();
        assert!(
            said.contains("|--network=none|--target=t|") && said.ends_with("|--file|/d|/c"),
            "{said}"
        );
        assert!(said.contains("--pull=false") && said.contains("|--build-arg=A=b c|"), "{said}");
        let old = build_arguments(&job, "r", Kit::BuiltIn);
        assert!(!old.contains(&"--provenance=false".into()), "20.10 does not know it: {old:?}");
        job.network = true;
        assert!(!text(&job).into_string().unwrap().contains("--network"));
    }
}
