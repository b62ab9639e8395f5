//! `provision lab demo`: from nothing to an image built from source that runs
//! on an installed node.

use super::lab::{self, UpArgs};
use super::{Fail, Session};
use crate::api::deployment::workload::ShownNode;
use crate::ingest::Run;
use crate::lab::{Lab, down};
use crate::model::{Build, Container, Name, Node, Operation};
use serde_json::Value;
use std::process::{Command, Stdio};

/// What is built in the demo.
const DOCKERFILE: &str = "FROM debian:12
COPY hello.sh /hello.sh
RUN chmod 755 /hello.sh && dpkg-query -W | wc -l > /packages
CMD [\"/hello.sh\"]
";
const HELLO: &str = "#!/bin/sh
echo \"hello from $(. /etc/os-release; echo \"$PRETTY_NAME\"), $(cat /packages) packages, on $(uname -n)\"
exec sleep infinity
";

pub(super) async fn run(a: UpArgs) -> Result<(), Fail> {
    let lab = lab::up(&a).await?;
    let s = lab::session(&lab)?;
    let image = super::output::segment(&a.image);
    let have: Result<Value, _> = s.client.get(&format!("/v1/images/{image}")).await;
    let fits = match have {
        Ok(i) => is_baked(&s, &i, &a.profile).await?,
        Err(_) => false,
    };
    if !fits {
        println!("building image {} with {} baked in", a.image, a.profile);
        let body = crate::api::images::BuildImage { bake: vec![a.profile.clone()] };
        let op: Operation = s.client.post(&format!("/v1/images/{image}/build"), &body).await?;
        if !super::watch::watch(&s, vec![op]).await? {
            return Ok(());
        }
    }
    let body = crate::api::install::InstallRequest {
        profile: a.profile.to_string(),
        image: Some(a.image.clone()),
        mirror: None,
    };
    if a.image_only {
        return Ok(down(&lab.name)?);
    }
    println!("$ provision install node01 --profile {}", a.profile);
    let op: Operation = s.client.post("/v1/nodes/node01/install", &body).await?;
    let build = op.build.clone();
    if !super::watch::watch(&s, vec![op]).await? {
        return Ok(());
    }
    let node: Node = s.client.get("/v1/nodes/node01").await?;
    let known = lab.dir.join("known_hosts");
    let lines: String = node
        .status
        .host_keys
        .iter()
        .map(|k| format!("{},{} {k}\n", node.spec.name, node.spec.address))
        .collect();
    std::fs::write(&known, lines)?;
    println!(
        "$ ssh ops@node01 {}",
        if a.profile.as_str() == "docker" { "docker version" } else { "uname -a" }
    );
    let out = ssh(
        &lab,
        &node,
        if a.profile.as_str() == "docker" { "docker version" } else { "uname -a" },
    )
    .output()?;
    print!("{}", String::from_utf8_lossy(&out.stdout));
    if !out.status.success() {
        let why = String::from_utf8_lossy(&out.stderr).trim().to_owned();
        return Err(Fail::Operation(format!("ssh ops@node01: {why}")));
    }
    if let Some(id) = build {
        let b: Build = s.client.get(&format!("/v1/builds/{id}")).await?;
        let took = b.ended.map_or(0, |e| e.duration_since(b.started).as_secs());
        println!("demo: node01 deployed in {took} s");
    }
    if lab.deployment && a.profile.as_str() == "docker" {
        deploy(&lab, &s, &node).await?;
    }
    eprintln!(
        "the rack is still up: PROVISION_SERVER={} provision …; `provision lab down` ends it",
        lab.server_url()
    );
    Ok(())
}

/// Whether the image has the profile baked in as the profile now is.
async fn is_baked(s: &Session, image: &Value, profile: &Name) -> Result<bool, Fail> {
    let all: Value = s.client.get("/v1/profiles").await?;
    let items = all.get("items").and_then(Value::as_array);
    let now = items.into_iter().flatten().find(|p| p["name"] == profile.as_str());
    let baked = image.get("baked").and_then(|b| b.get(profile.as_str()));
    // Images of an earlier recipe have no signed loaders.
    let signed = image.get("signed_loaders").is_none_or(|s| s == true);
    Ok(signed && baked.is_some() && baked == now.and_then(|p| p.get("digest")))
}

/// ssh into a node of the lab, with the host key that the agent reported.
fn ssh(lab: &Lab, node: &Node, command: &str) -> Command {
    let mut c = lab.command("ssh");
    // In a user namespace the host's settings belong to nobody, and ssh
    // would refuse to read them.
    c.args(["-F", "none", "-i"]).arg(lab.ssh_key());
    c.arg("-o").arg(format!("UserKnownHostsFile={}", lab.dir.join("known_hosts").display()));
    c.args(["-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=20", "-o", "BatchMode=yes"]);
    c.arg(format!("ops@{}", node.spec.address)).arg(command).stdin(Stdio::null());
    c
}

/// Software for the node: built from a folder on the deployment host, pulled
/// by the node with the certificate it got when it was installed.
async fn deploy(lab: &Lab, s: &Session, node: &Node) -> Result<(), Fail> {
    let folder = lab.dir.join("hello");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("Dockerfile"), DOCKERFILE)?;
    std::fs::write(folder.join("hello.sh"), HELLO)?;
    println!("$ provision base build debian:12");
    super::base::run(s, super::base::BaseArgs::build("debian:12")).await?;
    println!("$ provision ingest {} --name hello --tag 1", folder.display());
    super::ingest::run(s, super::ingest::IngestArgs::of(&folder, "hello", "1")).await?;
    let link = |e: crate::lab::LabError| Fail::Operation(e.to_string());
    let before = (lab.second_bytes().map_err(link)?.0, lab.build_server_bytes().map_err(link)?);
    let image = format!("{}/staging/hello:1", lab.registry());
    on_node(lab, node, &format!("docker pull --quiet {image}"))?;
    let run = format!(
        "docker run --detach --restart unless-stopped --name hello --hostname {} {image}",
        node.spec.name
    );
    on_node(lab, node, &run)?;
    let after = (lab.second_bytes().map_err(link)?.0, lab.build_server_bytes().map_err(link)?);
    on_node(lab, node, "docker logs hello")?;
    println!("$ provision nodes show {}", node.spec.name);
    let runs = running(s, node).await?;
    println!("runs  {}, {}", runs.image, runs.digest);
    println!("$ provision verify staging/hello:1");
    super::ingest::verify(s, super::ingest::VerifyArgs::of("staging/hello:1")).await?;
    let made: super::watch::List<Run> = s.deployment.get("/v1/ingest").await?;
    let took = made
        .items
        .iter()
        .find(|r| r.name == "hello")
        .and_then(|r| Some(r.ended?.duration_since(r.started?).as_secs_f64()));
    let ((from, (rx, tx)), (to, (rx_then, tx_then))) = (before, after);
    println!(
        "demo: staging/hello:1 built in {:.0} s and running on {}; {} crossed the deployment host's link, {} the build server's",
        took.unwrap_or_default(),
        node.spec.name,
        super::output::bytes(to.saturating_sub(from)),
        super::output::bytes((rx_then + tx_then).saturating_sub(rx + tx)),
    );
    Ok(())
}

/// Runs `command` on the node and shows what it says.
fn on_node(lab: &Lab, node: &Node, command: &str) -> Result<(), Fail> {
    println!("$ ssh ops@{} {command}", node.spec.name);
    let out = ssh(lab, node, command).output()?;
    print!("{}", String::from_utf8_lossy(&out.stdout));
    if out.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    Err(Fail::Operation(format!("{command}: failed on {}: {why}", node.spec.name)))
}

/// What the node has told of its container; it tells within a second.
async fn running(s: &Session, node: &Node) -> Result<Container, Fail> {
    let path = format!("/v1/nodes/{}", node.spec.name);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let told: ShownNode = s.deployment.get(&path).await?;
        if let Some(c) = told.running.into_iter().find(|c| c.name == "hello") {
            return Ok(c);
        }
        if std::time::Instant::now() > end {
            let m = format!("{} has not told within 60 s that it runs hello", node.spec.name);
            return Err(Fail::Operation(m));
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}
