//! The deployment server, put together: store, book, registry, API, TLS.

use super::certificate::{self, LOOK};
use super::shelf::{OwnShelf, Records};
use super::{claim, daemon, follow, images_at, ingest, listen, peer, tokens, upkeep};
use crate::api;
use crate::api::deployment::gate::Keeper;
use crate::api::deployment::promote::{House, Judge};
use crate::api::deployment::workload::Workloads;
use crate::api::deployment::{self, Book, Desk};
use crate::auth::MasterKey;
use crate::auth::rights::Grant;
use crate::config::deployment::Deployment;
use crate::ingest::Pipeline;
use crate::ingest::provenance::read;
use crate::model::{NewEvent, Outcome, Time};
use crate::registry::{self, Deed, Registry, Seen, Witness};
use crate::store::{self, Batch, Owner, Store};
use crate::tls;
use crate::tls::ca::Authority;
use crate::tls::rotate::{Renew, Rotation};
use crate::tls::signing::VerifyingKey;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long uploads in flight are waited for at an orderly stop.
const DRAIN: Duration = Duration::from_secs(20);
/// Deeds of the registry that wait to be written down; more are counted only.
const WITNESSED: usize = 4096;

/// Makes what a first start would make, and says what clients need.
///
/// # Errors
/// Files, the store.
pub fn init(config: &Deployment) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        make_dirs(config)?;
        let authority = authority(config)?;
        certificate(config, &authority)?;
        let store = store::open(&config.store).await?;
        tokens::load(&*store, &config.state_dir).await?;
        let dir = config.state_dir.display();
        println!("authority    {dir}/tls/ca.pem   (give it to clients: certs.d/HOST:PORT/ca.crt)");
        println!("certificate  for {}", names(config).join(", "));
        println!("admin token  {dir}/admin.token   (readable by root alone)");
        Ok(())
    })
}

/// Reads the configuration and what it leads to, and says what would be
/// served; starts nothing.
///
/// # Errors
/// What would keep the server from starting.
pub fn check(config: &Deployment) -> Result<()> {
    grants(&config.anonymous, "registry.anonymous", true)?;
    let nodes = grants(&config.node_rights, "nodes.rights", false)?;
    if let Some((cert, key)) = &config.own_certificate {
        tls::Held::open(cert, key)?;
    }
    let may: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    println!("registry     https://{}/v2/ for {}", config.listen, names(config).join(", "));
    println!("images       {}", images_at::describe(config));
    if let Some(s3) = &config.s3 {
        images_at::bucket(s3)?;
        let from = s3.credentials_file.as_ref().map(|f| f.display().to_string());
        println!("bucket keys  from {}", from.as_deref().unwrap_or("the environment"));
    }
    if let Some(f) = &config.follow {
        follow::access(config, f)?;
        let what = if f.images { f.repositories.join(" ") } else { "certificates alone".into() };
        println!("follows      {} in {what}, every {} s", f.leader, f.every.as_secs());
    }
    println!("nodes may    {}", may.join(" "));
    ingest::hooks(config)?;
    for h in &config.ingest.hooks {
        let from = h.repositories.join(" ");
        println!("webhook      /v1/hooks/{} ({:?}) from {from}", h.name, h.kind);
    }
    println!("store        {}", config.store.split('@').next_back().unwrap_or_default());
    Ok(())
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What keeps it from starting, or made it stop.
pub async fn run(config: Deployment) -> Result<()> {
    make_dirs(&config)?;
    let _lock = daemon::lock(&config.state_dir)?;
    let store = store::open(&config.store).await?;
    let owner = claim::owner(&config.state_dir)?;
    claim::have(&*store, &owner, |_| {}).await?;
    let outcome = serve(&config, store.clone(), owner.clone()).await;
    // At the very end: until now, something may still be written.
    if let Err(e) = store.release(&owner).await {
        tracing::warn!(error = %e, "the store's claim is not given back; it expires by itself");
    }
    outcome
}

async fn serve(config: &Deployment, store: Arc<dyn Store>, owner: Owner) -> Result<()> {
    let authority = Arc::new(authority(config)?);
    let (cert, key) = certificate(config, &authority)?;
    let held = tls::Held::open(&cert, &key)?;
    let tls = tls::mutual_config(held.clone(), authority.pem())?;
    let rotation = Rotation::new(held.clone(), renewal(config, &authority));
    let master = Arc::new(MasterKey::open(&config.state_dir.join("secret.key"))?);
    let known = tokens::load(&*store, &config.state_dir).await?;
    let anonymous = grants(&config.anonymous, "registry.anonymous", true)?;
    let nodes = grants(&config.node_rights, "nodes.rights", false)?;
    let book = Arc::new(Book::open(store.clone(), master, known, anonymous, nodes).await?);

    let (deeds, seen) = mpsc::channel(WITNESSED);
    let mut settings = follow::settings(config)?;
    settings.gate = Arc::new(Keeper(book.clone()));
    settings.witness = Arc::new(Clerk(deeds));
    settings.grace = config.grace;
    let registry = Registry::open(settings).await;
    let registry = Arc::new(registry.with_context(|| images_at::describe(config))?);
    let follows = match &config.follow {
        Some(f) => Some(follow::prepare(config, f, &registry, book.clone(), authority.pem())?),
        None => None,
    };
    let hosts = names(config).iter().map(|n| format!("{n}:{}", config.listen.port())).collect();
    let settings = ingest::settings(config, hosts)?;
    let shelf = Arc::new(OwnShelf(registry.clone()));
    let pipeline = Pipeline::new(settings, shelf, Arc::new(Records(book.clone()))).await?;
    match pipeline.builder() {
        Ok(b) => tracing::info!(builder = b.name, version = b.version, "images are built with"),
        Err(why) => tracing::warn!("no images are built here: {why}"),
    }
    let desk = Arc::new(Desk {
        refusals: Default::default(),
        pipeline: pipeline.clone(),
        book: book.clone(),
        authority,
        certificate_life: config.certificate_life,
        registry: registry.clone(),
        workloads: Workloads::open(&*store).await?,
        house: House::new(config.rules.clone(), judge(pipeline.verifying_key())),
        following: follows.as_ref().map(follow::Follows::following),
        hooks: ingest::hooks(config)?,
        traffic: Default::default(),
    });

    let listener = listen::tcp(config.listen)?;
    let local = listen::local(&config.socket)?;
    let started = NewEvent::new(Time::now(), "server", "server.start", Outcome::Ok)
        .with("version", env!("CARGO_PKG_VERSION"));
    book.commit(Batch::new().event(started)).await?;

    let stop = CancellationToken::new();
    let mut tasks: JoinSet<(&'static str, Result<()>)> = JoinSet::new();
    let routes = |at| {
        let asked = deployment::router(desk.clone()).layer(axum::Extension(held.clone()));
        let all = registry::routes(registry.clone()).merge(asked);
        api::traffic::counted(all, &desk.traffic, at)
    };
    let (s, r) = (stop.clone(), routes("api"));
    tasks.spawn(async move {
        (
            "registry",
            listen::serve_mutual(listener, peer::PeerAcceptor::new(tls), r, s)
                .await
                .map_err(Into::into),
        )
    });
    let (s, r, path) = (stop.clone(), routes("local"), config.socket.clone());
    tasks.spawn(async move {
        ("local api", listen::serve_local(local, path, r, s).await.map_err(Into::into))
    });
    let (d, s) = (desk.clone(), stop.clone());
    tasks.spawn(async move { ("certificate", certificate::watch(d, rotation, LOOK, s).await) });
    let (s, kept) = (stop.clone(), store.clone());
    tasks.spawn(async move { ("claim on the store", claim::keep(&*kept, &owner, s).await) });
    if let Some(every) = config.gc_every {
        let (d, s) = (desk.clone(), stop.clone());
        tasks.spawn(async move { ("garbage collection", upkeep::collect(d, every, s).await) });
    }
    let (d, s, after) = (desk.clone(), stop.clone(), config.node_lost);
    tasks.spawn(async move { ("watch over nodes", upkeep::watch(d, after, s).await) });
    if let Some(f) = follows {
        let s = stop.clone();
        tasks.spawn(async move { ("following", f.run(s).await) });
    }
    let recorder = tokio::spawn(record(book.clone(), seen));

    tracing::info!(listen = %config.listen, store = store.name(), storage = images_at::describe(config), "serving");
    let outcome = tokio::select! {
        r = daemon::stop_signal() => r,
        Some(ended) = tasks.join_next() => match ended {
            Ok((what, Ok(()))) => Err(anyhow::anyhow!("{what} ended by itself")),
            Ok((what, Err(e))) => Err(e.context(format!("{what} failed"))),
            Err(e) => Err(e.into()),
        },
    };
    if tokio::time::timeout(DRAIN, pipeline.close()).await.is_err() {
        tracing::warn!("builds of images did not stop within 20 s");
    }
    let drained = registry.drain(Instant::now() + DRAIN).await;
    if drained.left > 0 {
        tracing::warn!(uploads = drained.left, "uploads were cut off; clients can resume them");
    }
    stop.cancel();
    let all_ended = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_secs(10), all_ended).await.is_err() {
        tracing::warn!("some parts did not stop within 10 s");
    }
    // What was done and not yet written down.
    drop((registry, desk));
    let _ = tokio::time::timeout(Duration::from_secs(5), recorder).await;
    let stopped = NewEvent::new(Time::now(), "server", "server.stop", Outcome::Ok);
    let _ = book.commit(Batch::new().event(stopped)).await;
    tracing::info!("stopped");
    outcome
}

/// What is signed counts when our own key signed it for this very image.
fn judge(key: VerifyingKey) -> Judge {
    Arc::new(move |envelope, digest| {
        let image = digest.to_string().parse().map_err(|e| format!("{digest}: {e}"))?;
        read(envelope, &key, &image).map_err(|e| e.to_string())
    })
}

/// Writes down what the registry did. A client does not wait for it.
struct Clerk(mpsc::Sender<Seen>);

impl Witness for Clerk {
    fn seen(&self, what: Seen) {
        // Blobs are many and say little: the manifest names them.
        let of_note = match &what.deed {
            Deed::Pushed | Deed::Pulled => what.manifest,
            Deed::Deleted | Deed::Tagged(_) => true,
            Deed::Mounted(_) => false,
        };
        if of_note && self.0.try_send(what).is_err() {
            tracing::warn!("more is done in the registry than the store can write down");
        }
    }
}

async fn record(book: Arc<Book>, mut seen: mpsc::Receiver<Seen>) {
    let mut some = Vec::new();
    while seen.recv_many(&mut some, 64).await > 0 {
        let mut batch = Batch::new();
        for s in some.drain(..) {
            let action = match &s.deed {
                Deed::Pushed => "image.push",
                Deed::Pulled => "image.pull",
                Deed::Deleted => "image.delete",
                Deed::Tagged(_) => "image.tag",
                Deed::Mounted(_) => "image.mount",
            };
            let mut e = NewEvent::new(Time::now(), &s.caller, action, Outcome::Ok)
                .with("repository", s.repository.as_str())
                .with("reference", &s.reference);
            if let Some(d) = &s.digest {
                e = e.with("digest", d);
            }
            if let Some(Ok(node)) = s.caller.strip_prefix("node:").map(str::parse) {
                e = e.node(&node);
            }
            batch = batch.event(e);
        }
        // Tried for a while: what cannot be written then is in the log.
        let mut tries = 0;
        while let Err(e) = book.commit(batch.clone()).await {
            tries += 1;
            if tries == 30 {
                tracing::error!(error = %e, events = batch.events.len(), "pulls and pushes are not in the record");
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

fn grants(texts: &[String], key: &str, pull_only: bool) -> Result<Vec<Grant>> {
    let mut all = Vec::new();
    for t in texts {
        let g: Grant = t.parse().with_context(|| key.to_owned())?;
        if pull_only && !g.to_string().ends_with(":pull") {
            bail!("{key}: {t:?}: everybody may pull at most");
        }
        all.push(g);
    }
    Ok(all)
}

fn make_dirs(c: &Deployment) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let mut private = std::fs::DirBuilder::new();
    private.recursive(true).mode(0o700);
    let images = c.s3.is_none().then_some(&c.storage);
    for d in [&c.state_dir, &c.state_dir.join("tls")].into_iter().chain(images) {
        private.create(d).with_context(|| d.display().to_string())?;
    }
    Ok(())
}

fn names(c: &Deployment) -> Vec<String> {
    let mut all = c.names.clone();
    if let Ok(host) = std::fs::read_to_string("/proc/sys/kernel/hostname") {
        all.push(host.trim().to_owned());
    }
    if !c.listen.ip().is_unspecified() {
        all.push(c.listen.ip().to_string());
    }
    all.extend(["localhost".to_owned(), "127.0.0.1".to_owned()]);
    let mut once = std::collections::BTreeSet::new();
    all.retain(|n| !n.is_empty() && once.insert(n.clone()));
    all
}

fn authority(c: &Deployment) -> Result<Authority> {
    let host = names(c).into_iter().next().unwrap_or_default();
    Ok(Authority::open(&c.state_dir.join("tls"), &format!("Provision at {host}"))?)
}

/// Where the server's certificate and key are; made if they are ours.
fn certificate(c: &Deployment, a: &Authority) -> Result<(PathBuf, PathBuf)> {
    if let Some(own) = &c.own_certificate {
        return Ok(own.clone());
    }
    let dir = c.state_dir.join("tls");
    a.server(&dir, &names(c))?;
    Ok((dir.join("server.pem"), dir.join("server.key")))
}

/// Makes another in its last third where it is ours; somebody's own is theirs.
fn renewal(c: &Deployment, a: &Arc<Authority>) -> Option<Renew> {
    if c.own_certificate.is_some() {
        return None;
    }
    let (authority, dir, names) = (a.clone(), c.state_dir.join("tls"), names(c));
    Some(Box::new(move || authority.server(&dir, &names)))
}
