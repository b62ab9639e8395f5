//! Buildah, as root, without a daemon. Each build has a storage of its own that
//! goes with it; base images are read from OCI layouts (`FROM oci:base-0000`).
//!
//! Isolation is `chroot`: it works without a container runtime and inside of
//! containers. It knows no network of its own, so the whole of buildah runs in
//! a namespace without one. A process that may call chroot(2) could leave such
//! a root: the build does without that capability.

use super::{BuildFailure, Builder, Job, Sandbox, identity_of, sandboxed};
use crate::image::build::Progress;
use crate::image::child::{self, ChildError};
use crate::ingest::context::ContextError;
use crate::ingest::run::BuilderIdentity;
use crate::model::Digest;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

/// See the module.
#[derive(Debug, Clone)]
pub struct Buildah {
    version: String,
    driver: &'static str,
}

impl Buildah {
    /// Looks for it, and for the storage driver that works in `dir`.
    pub fn find(dir: &Path) -> Result<Self, String> {
        let found = identity_of("buildah", Command::new("buildah").arg("--version"))
            .ok_or("buildah is not installed here: apt-get install buildah")?;
        if !rustix::process::geteuid().is_root() {
            return Err("buildah is here, but builds with it need root".to_owned());
        }
        let at = dir.join("probe");
        let script = "mkdir -p \"$1/tmp\"; export TMPDIR=\"$1/tmp\"
            b=\"buildah --root $1/s --runroot $1/r --storage-driver overlay\"
            $b mount \"$($b from scratch)\"";
        let mut command = sandboxed(script, &[at.as_os_str()], Sandbox::NoNetwork);
        let done = command.output().is_ok_and(|o| o.status.success());
        // What is left goes with the run directory at the next start.
        let _ = fs::remove_dir_all(&at);
        // vfs copies everything for each step and works everywhere.
        Ok(Self { version: found.version, driver: if done { "overlay" } else { "vfs" } })
    }
}

impl Builder for Buildah {
    fn identity(&self) -> BuilderIdentity {
        BuilderIdentity { name: "buildah".to_owned(), version: self.version.clone() }
    }

    fn exact(&self, layout: &Path, _: &Digest) -> String {
        // By its name alone: buildah makes the name of an image from the path,
        // and fails when that has capital letters or such. It runs in the
        // directory of the job.
        format!("oci:{}", layout.file_name().unwrap_or_default().to_string_lossy())
    }

    fn build(&self, job: &Job<'_>, progress: &mut dyn Progress) -> Result<(), BuildFailure> {
        let tmp = job.work.join("tmp");
        fs::create_dir_all(&tmp).map_err(ContextError::io(&tmp))?;
        let mut arguments: Vec<OsString> = vec![
            job.work.join("storage").into(),
            job.work.join("run").into(),
            self.driver.into(),
            job.out.into(),
        ];
        let options =
            ["--isolation=chroot", "--cap-drop=CAP_SYS_CHROOT", "--format=oci", "--layers=false"];
        arguments.extend(options.map(OsString::from));
        // The context was cleared of ignored files already.
        arguments.extend(["--pull-never", "--ignorefile=/dev/null"].map(OsString::from));
        arguments.push(format!("--timestamp={}", job.epoch).into());
        if let Some(target) = job.target {
            arguments.push(format!("--target={target}").into());
        }
        for (name, value) in job.arguments {
            arguments.push(format!("--build-arg={name}={value}").into());
        }
        arguments.extend(["--file".into(), job.dockerfile.into(), job.context.into()]);
        let sandbox = if job.network { Sandbox::Network } else { Sandbox::NoNetwork };
        let arguments: Vec<_> = arguments.iter().map(OsString::as_os_str).collect();
        let mut command = sandboxed(include_str!("../scripts/buildah.sh"), &arguments, sandbox);
        command.current_dir(job.work).env("TMPDIR", &tmp).env("HOME", job.work);
        child::run("buildah", command, progress).map_err(step_of)
    }
}

/// `Error: building at STEP "RUN false": exit status 1`.
fn step_of(e: ChildError) -> BuildFailure {
    let ChildError::Failed { last, .. } = &e else { return e.into() };
    let found = last.iter().rev().find_map(|l| {
        let (step, why) = l.split_once("building at STEP \"")?.1.rsplit_once("\": ")?;
        Some((step.to_owned(), why.to_owned()))
    });
    let Some((step, why)) = found else { return e.into() };
    let last = last.iter().filter(|l| !is_noise(l)).cloned().collect();
    BuildFailure::Step { step, why, last }
}

/// Lines of buildah's own that say nothing about the step.
fn is_noise(line: &str) -> bool {
    let starts = [
        "subprocess exited with",
        "Getting image source",
        "Copying blob",
        "Copying config",
        "Writing manifest",
        "Storing signatures",
    ];
    starts.iter().any(|s| line.starts_with(s)) || line.contains("building at STEP")
}
