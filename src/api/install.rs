//! `POST /v1/nodes/{n}/install`: checks that image and profile exist and fit
//! before anything is powered, and fixes the plan.

use super::choice::{Chosen, choose};
use super::problem::{Json, Path};
use super::{Caller, Ctx, Problem, demand};
use crate::auth::Role;
use crate::image::{Image, recipe, sources};
use crate::lifecycle::InstallOrder;
use crate::mirror::Mirror;
use crate::model::plan::{
    InstallPlan, InstallerPlan, NetworkPlan, RegistryPlan, RootfsPlan, UserPlan,
};
use crate::model::{
    Asker, BuildInputs, Method, MirrorUsed, Name, NewEvent, Node, Operation, OperationId, Outcome,
    Time,
};
use crate::preseed::Release;
use crate::profile::Profile;
use axum::Json as Out;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The body of an install.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InstallRequest {
    /// Profile.
    #[schema(value_type = Name)]
    #[serde(rename = "type", alias = "profile")]
    pub profile: String,
    /// Image; the configured one when left out.
    #[schema(value_type = Option<Name>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Mirror to take all packages from, for an image of an installer; the
    /// archives, through the cache, when left out.
    #[schema(value_type = Option<Name>)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<String>,
}

/// Installs a node: its disk is wiped.
#[utoipa::path(
    post,
    path = "/v1/nodes/{n}/install",
    tag = "nodes",
    params(("n" = String, Path, description = "Name or address of the node", example = "node01")),
    request_body(content = InstallRequest, example = json!({
        "type": "docker", "image": "debian-12"
    })),
    responses((status = 202, description = "An operation to watch", body = Operation))
)]
pub(super) async fn install(
    caller: Caller,
    State(ctx): State<Arc<Ctx>>,
    Path(n): Path<String>,
    Json(r): Json<InstallRequest>,
) -> Result<(StatusCode, Out<Operation>), Problem> {
    demand(&*ctx, &caller, Role::Controller, "installing").await?;
    match order(&ctx, (&caller.asker(), None), &n, &r).await {
        Ok(order) => {
            let o = ctx.rack.install(order).await?;
            Ok((StatusCode::ACCEPTED, Out(o)))
        }
        Err(p) => {
            let mut e =
                NewEvent::new(Time::now(), &caller.name, "install.request", Outcome::Refused)
                    .with("profile", &r.profile)
                    .with("reason", &p.detail);
            e.node = n.parse().ok();
            ctx.rack.log(vec![e]).await?;
            Err(p)
        }
    }
}

/// Checks, and fixes the plan; `parent` is the operation it is a part of.
pub(super) async fn order(
    ctx: &Arc<Ctx>,
    by: (&Asker, Option<&OperationId>),
    n: &str,
    r: &InstallRequest,
) -> Result<InstallOrder, Problem> {
    let node = (**ctx.rack.view().inventory.find(n)?).clone();
    ordered(ctx, by, node, &choose(ctx, r).await?)
}

/// The same when it is known what the request names.
pub(super) fn ordered(
    ctx: &Arc<Ctx>,
    (asker, parent): (&Asker, Option<&OperationId>),
    node: Node,
    chosen: &Chosen,
) -> Result<InstallOrder, Problem> {
    let Chosen { profile, image, mirror, .. } = chosen;
    let method = image.description.method;
    let baked = image.baked_for(&profile.name, &profile.digest).filter(|_| !method.is_installer());
    let (rootfs, installer) = if method.is_installer() {
        (None, Some(installer(ctx, &node, chosen)?))
    } else if let Some(m) = mirror {
        let m = format!(
            "mirror '{}' is for an installer; image '{}' is written by the agent and needs none",
            m.description.name, image.name
        );
        return Err(Problem::unfit(m).at("/mirror"));
    } else {
        let rootfs = image.rootfs_plan(baked, "/images").ok_or_else(|| {
            let m = format!("image '{}' cannot be written to a disk by the agent", image.name);
            Problem::unfit(m).at("/image")
        })?;
        (Some(rootfs), None)
    };
    if image.description.arch != node.spec.arch {
        let m = format!(
            "image '{}' is for {:?} and {} is {:?}",
            image.name, image.description.arch, node.spec.name, node.spec.arch
        );
        return Err(Problem::unfit(m).at("/image"));
    }
    if ctx.config.install.ssh_keys.is_empty() {
        tracing::warn!(node = %node.spec.name, "no ssh keys are configured: nobody can log in");
    }
    let inputs = BuildInputs {
        image: image.name.clone(),
        method,
        image_digest: image.digest,
        profile: profile.name.clone(),
        profile_digest: profile.digest,
        baked: baked.is_some(),
        mirror: mirror
            .as_ref()
            .map(|m| MirrorUsed { name: m.description.name.clone(), digest: m.digest }),
        config_commit: chosen.config_commit.clone(),
        templates: ["install.ipxe", "local.ipxe", "pxelinux.cfg", "grub.cfg"]
            .into_iter()
            .filter_map(|t| Some((t.to_owned(), ctx.scripts.digest(t)?)))
            .collect::<BTreeMap<_, _>>(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let is_baked = baked.is_some();
    let mac = node.spec.macs.first().copied();
    let mac = mac.ok_or_else(|| Problem::internal(format!("{} has no MAC", node.spec.name)))?;
    let mut plan = plan(ctx, &node, image, profile, rootfs, mac, is_baked);
    plan.installer = installer;
    if let Some(m) = mirror {
        // Not the archives that the host knows: they may not be there.
        plan.apt_sources = format!("deb {} {} main\n", mirror_url(ctx, m), m.description.suite);
    }
    Ok(InstallOrder {
        node: node.spec,
        asker: asker.clone(),
        parent: parent.cloned(),
        inputs,
        plan: Box::new(move |build| InstallPlan { build, ..plan }),
    })
}

fn plan(
    ctx: &Ctx,
    node: &Node,
    image: &Image,
    profile: &Profile,
    rootfs: Option<RootfsPlan>,
    mac: crate::model::Mac,
    baked: bool,
) -> InstallPlan {
    let (net, install) = (&ctx.config.network, &ctx.config.install);
    let around = net.around(node.spec.address);
    InstallPlan {
        build: crate::model::BuildId::generate(),
        node: node.spec.name.clone(),
        now: Time::now(),
        disk: node.spec.disk.clone(),
        rootfs,
        installer: None,
        kernel_args: match image.description.method.is_installer() {
            // The image's are the installer's own.
            true => install.kernel_args.clone(),
            false => {
                let of_image = &image.description.kernel_args;
                format!("{of_image} {}", install.kernel_args).trim().to_owned()
            }
        },
        users: vec![UserPlan {
            name: install.user.clone(),
            ssh_keys: install.ssh_keys.clone(),
            // Put in when the plan is handed out: no hash in the record.
            password_hash: None,
        }],
        network: NetworkPlan {
            mac,
            address: node.spec.address,
            prefix: around.prefix,
            gateway: around.router,
            dns: net.dns.clone(),
            ntp: net.ntp.clone(),
            domain: net.domain.clone(),
        },
        profile: profile.plan(baked),
        boot: install.boot,
        timezone: install.timezone.clone(),
        apt_sources: apt_sources(image, &ctx.through),
        registry: ctx.config.deployment.as_ref().map(|d| RegistryPlan { host: d.host.clone() }),
    }
}

/// Where a mirror is served.
fn mirror_url(ctx: &Ctx, m: &Mirror) -> String {
    format!("{}/mirror/{}", ctx.scripts.server().base(), m.description.name)
}

/// What the distribution's installer is told; refused where there are no
/// packages for it, since it would stop and ask for another mirror.
fn installer(
    ctx: &Ctx,
    node: &Node,
    Chosen { profile, image, mirror, .. }: &Chosen,
) -> Result<InstallerPlan, Problem> {
    let d = &image.description;
    let at = if mirror.is_some() { "/mirror" } else { "/image" };
    let refused = |m: String| Problem::unfit(m).at(at);
    let release = match d.method {
        Method::Preseed => {
            let release = format!("{}-{}", d.os, d.release);
            release.parse::<Release>().map_err(|e| refused(e.to_string()))?.to_string()
        }
        _ => String::new(),
    };
    let suite = &d.provenance.suite;
    let from_cache = InstallerPlan {
        release,
        // The image's own components lie over the archive.
        directory: format!("/installer/{}", image.name),
        suite: suite.clone(),
        udeb_suite: d.installer.as_ref().and_then(|i| i.udeb_suite.clone()),
        security: None,
        // It follows our clock, and says so: `chronyc sources`.
        packages: vec!["chrony".to_owned()],
        labels: node.spec.labels.clone(),
    };
    if let Some(m) = mirror {
        let of = &m.description;
        // The kernel, its modules and the components are of one version.
        if of.image_digest != image.digest {
            return Err(refused(format!(
                "mirror '{}' was made for image '{}' as it was then, not for '{}' as it is now: \
                 `provision mirror build --image {} --profile {}` makes one",
                of.name, of.image, image.name, image.name, profile.name
            )));
        }
        // The installer would fetch the list, not believe it, and stop.
        let believed = d.installer.as_ref().map(|i| i.key.as_str()).unwrap_or_default();
        if of.key != believed {
            return Err(refused(format!(
                "mirror '{}' is signed with the key {}, and the installer of image '{}' believes \
                 {believed}: add the image on the server that makes the mirror, and carry both",
                of.name, of.key, image.name
            )));
        }
        let has = of.profile.as_ref() == Some(&profile.name);
        if !has && !profile.packages.is_empty() {
            return Err(refused(format!(
                "mirror '{}' was not made for profile '{}' and may lack its packages",
                of.name, profile.name
            )));
        }
        // The profile may have become another one since.
        let asked = of.asked.iter().chain(&of.absent).map(String::as_str);
        let asked: BTreeSet<&str> = asked.collect();
        let names = profile.packages.iter().map(|p| p.trim_end_matches('?'));
        let lacks: Vec<&str> = names.filter(|p| !asked.contains(p)).collect();
        if !lacks.is_empty() {
            return Err(refused(format!(
                "mirror '{}' was made for profile '{}' as it was then, and has not what that \
                 names now: {}; `provision mirror build --image {} --profile {}` makes one that has",
                of.name,
                profile.name,
                lacks.join(", "),
                image.name,
                profile.name
            )));
        }
        return Ok(InstallerPlan {
            directory: format!("/mirror/{}", of.name),
            suite: of.suite.clone(),
            udeb_suite: None,
            ..from_cache
        });
    }
    if d.installer.as_ref().is_none_or(|i| i.origin.is_none()) {
        return Err(refused(format!(
            "image '{}' was not made from an archive of this server's cache: see that `[cache]` \
             is on and that apt's configuration here names Debian's archive, and add the image \
             again; or name a mirror",
            image.name
        )));
    }
    if d.os == recipe::UBUNTU {
        if apt_sources(image, &ctx.through).is_empty() {
            return Err(refused(format!(
                "image '{}' takes its packages from Ubuntu's archive, and this server's cache has \
                 none: [[cache.origins]] with name = \"ubuntu\" in the configuration",
                image.name
            )));
        }
        // Its security updates are in the same archive.
        let security = Some(format!("/apt/{}", recipe::UBUNTU));
        return Ok(InstallerPlan { security, ..from_cache });
    }
    let security = format!("{suite}-security");
    let all = sources::for_suite(std::path::Path::new("/etc/apt"), suite).unwrap_or_default();
    let security = all.iter().find(|s| s.suite == security).and_then(|s| {
        let (_, to) = ctx.through.iter().find(|(there, _)| *there == s.uri)?;
        to.find("/apt/").map(|at| to[at..].to_owned())
    });
    Ok(InstallerPlan { security, ..from_cache })
}

/// The node's package sources: those of this host, for the image's release,
/// through its cache; Ubuntu's, from the archive that the cache has.
/// A host without any gives none, and only baked profiles can be installed.
fn apt_sources(image: &Image, through: &[(String, String)]) -> String {
    let suite = &image.description.provenance.suite;
    if image.description.os == recipe::UBUNTU {
        let here = through.iter().map(|(_, here)| here);
        let here = here.filter(|h| h.ends_with(&format!("/{}", recipe::UBUNTU)));
        let lines = |h: &String| {
            let of = |pocket: &str| format!("deb {h} {suite}{pocket} main universe\n");
            ["", "-updates", "-security"].map(of).concat()
        };
        return here.map(lines).next().unwrap_or_default();
    }
    let all = sources::for_suite(std::path::Path::new("/etc/apt"), suite).unwrap_or_default();
    let all = sources::through(all, through);
    all.iter().map(|s| format!("{}\n", s.line())).collect()
}
