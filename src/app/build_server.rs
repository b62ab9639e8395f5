//! `build-server`: opens its parts, serves, stops in order.

use super::boots::{RackView, TftpFiles};
use super::certificate::{self, LOOK};
use super::console::Consoles;
use super::daemon::{lock, stop_signal};
use super::dhcp_settings::dhcp_settings;
use super::installer_files::{self, InstallerFiles};
use super::observer::{self, Recorder, Strangers};
use super::services::Services;
use super::{bmcs, certifier, claim, images, listen, mirrors, packages, software, tokens};
use crate::api::{self, Ctx};
use crate::auth::MasterKey;
use crate::config::{Config, DhcpMode};
use crate::dhcp;
use crate::image::{Catalogue, ramdisk};
use crate::lifecycle::Rack;
use crate::mirror::Mirrors;
use crate::model::{NewEvent, Outcome, Phase, Time};
use crate::netboot::Boots;
use crate::netboot::files::BootFiles;
use crate::netboot::http::BootHttp;
use crate::netboot::script::Scripts;
use crate::preseed::Preseeds;
use crate::profile::Profiles;
use crate::store::{self, Owner, Store, kind};
use crate::tls::rotate::Rotation;
use crate::{tftp, tls, ui};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Runs until SIGTERM or SIGINT.
pub async fn run(config: Config) -> Result<()> {
    let config = Arc::new(config);
    make_dirs(&config)?;
    let _lock = lock(&config.state_dir)?;
    let store = store::open(&config.store).await?;
    // Bound before anything is served; it answers `/readyz` while a store is
    // waited for.
    let api_listener = listen::tcp(config.api_listen)?;
    let (cert, key) = tls::own_pair(&config.state_dir.join("tls"), &names(&config))?;
    let held = tls::Held::open(&cert, &key)?;
    let server_config = tls::server_config(held.clone())?;
    let owner = claim::owner(&config.state_dir)?;
    have_store(&*store, &owner, &api_listener, server_config.clone()).await?;
    let shown = (held, server_config);
    let outcome = serve(config, store.clone(), owner.clone(), api_listener, shown).await;
    // At the very end: until now, something may still be written.
    if let Err(e) = store.release(&owner).await {
        tracing::warn!(error = %e, "the store's claim is not given back; it expires by itself");
    }
    outcome
}

/// Waits for the store to be ours, or for a signal to stop.
async fn have_store(
    store: &dyn Store,
    owner: &Owner,
    listener: &TcpListener,
    tls: Arc<rustls::ServerConfig>,
) -> Result<()> {
    let why = Arc::new(Mutex::new(String::new()));
    let stop = CancellationToken::new();
    let mut waiting = JoinSet::new();
    let (text, s, listener) = (why.clone(), stop.clone(), listener.try_clone()?);
    let had = tokio::select! {
        had = claim::have(store, owner, |w| {
            *text.lock().unwrap_or_else(PoisonError::into_inner) = w;
            let Ok(listener) = listener.try_clone() else { return };
            waiting.spawn(listen::serve_tls(listener, tls.clone(), api::health::waiting(why.clone()), s.clone()));
        }) => had,
        r = stop_signal() => r.and_then(|()| bail!("stopped while waiting for the store")),
    };
    stop.cancel();
    while waiting.join_next().await.is_some() {}
    had
}

async fn serve(
    config: Arc<Config>,
    store: Arc<dyn Store>,
    owner: Owner,
    api_listener: TcpListener,
    (held, server_config): (Arc<tls::Held>, Arc<rustls::ServerConfig>),
) -> Result<()> {
    let key = Arc::new(MasterKey::open(&config.state_dir.join("secret.key"))?);
    let power_limit = config.deadlines.of(Phase::Power);
    let power_limit = Duration::try_from(power_limit)?.mul_f64(0.9);
    let numbers = Arc::new(api::numbers::Numbers::default());
    let calls = numbers.power.clone();
    let bmcs = Arc::new(bmcs::StoredBmcs::new(store.clone(), key.clone(), power_limit, calls));
    let rack = Rack::load(store.clone(), config.deadlines.clone(), bmcs.clone()).await?;
    let known = tokens::load(&*store, &config.state_dir).await?;
    let strangers = strangers(&*store).await?;

    let (observer, sightings) = observer::queue();
    let view = Arc::new(RackView {
        rack: rack.clone(),
        config: config.clone(),
        key: key.clone(),
        observer: observer.clone(),
        grubs: Default::default(),
        refusals: Default::default(),
    });
    let net = &config.network;
    let scripts = Scripts::new(config.templates_dir.clone(), view.server(), net.clone());
    if let Some(fault) = scripts.lint().into_iter().next() {
        bail!("{fault}");
    }
    // It runs other programs: not on a thread that serves.
    let preseeds = Preseeds::new(config.templates_dir.clone());
    let linted = preseeds.clone();
    // Installs that need such a file are refused when they are ordered. The
    // rest of the rack must not be without addresses and names for it.
    for fault in tokio::task::spawn_blocking(move || linted.lint_quickly()).await? {
        tracing::error!("{fault}");
    }
    let boots: Arc<dyn Boots> = view.clone();
    let agent = std::fs::read(&config.install.agent)
        .with_context(|| format!("the agent {} cannot be read", config.install.agent.display()))?;
    let agent = bytes::Bytes::from(ramdisk::agent_cpio(&agent));
    let files = BootFiles::new(config.loaders_dir.clone(), scripts.clone(), boots)
        .with_agent(agent.clone());
    for missing in files.missing() {
        if missing.is_grave(config.uefi_loader) {
            tracing::warn!("{missing}");
        } else {
            tracing::info!("{missing}");
        }
    }

    let stop = CancellationToken::new();
    let mut tasks: JoinSet<(&'static str, Result<()>)> = JoinSet::new();
    let counters = counters(&observer);

    // Everything is bound before anything is served.
    let dhcp = match config.dhcp_mode {
        DhcpMode::Off => None,
        mode => Some(
            dhcp::Server::bind(
                dhcp_settings(&config, mode),
                view.clone(),
                Arc::new(observer.clone()),
            )
            .await?,
        ),
    };
    let dhcp_counters = dhcp.as_ref().map(dhcp::Server::counters);
    let tftp = match config.tftp {
        true => Some(tftp::Server::bind(
            tftp::Settings::new(SocketAddr::from((net.address, 69))),
            Arc::new(TftpFiles(files.clone())),
            view.clone(),
        )?),
        false => None,
    };
    let tftp_counts = tftp.as_ref().map(tftp::Server::counts);
    let services = Services::bind(&config, &rack, &key)?;
    let (service_counters, clock) = (services.counters(), services.clock());
    let boot_listener = listen::tcp(SocketAddr::from((net.address, config.http_port)))?;
    let local = listen::local(&config.api_socket)?;

    let packages = packages::open(&config).with_context(|| {
        let dir = config.cache.as_ref().map(|c| c.dir.display().to_string());
        format!("the package cache {}", dir.unwrap_or_default())
    })?;
    let package_counts = packages.clone();
    let certifier = match &config.deployment {
        Some(link) => Some(Arc::new(certifier::Remote::new(link, store.clone())?)),
        None => None,
    };
    let shelf = Mirrors::open(config.state_dir.join("mirrors"));
    let consoles = Consoles {
        rack: rack.clone(),
        bmcs: bmcs.clone(),
        logs: config.state_dir.join("logs"),
        key: key.clone(),
    };
    let ctx = Arc::new(Ctx {
        certifier: certifier.clone().map(|c| c as Arc<dyn api::Certifier>),
        config: config.clone(),
        rack: rack.clone(),
        images: Catalogue::open(&config.images_dir),
        profiles: Profiles::open(&config.profiles_dir),
        through: packages::through(&config),
        scripts,
        preseeds,
        key,
        tokens: RwLock::new(known),
        refusals: Default::default(),
        answering: Default::default(),
        webhooks: api::webhooks::Webhooks::load(&*store).await?,
        bmcs,
        builder: Arc::new(images::HostBuilder {
            images: config.images_dir.clone(),
            // Beside the images, so that a new state does not download all again.
            cache: config.images_dir.join(".cache"),
            through: packages::through(&config),
            cache_files: packages::files(&config),
            key: config.state_dir.join("archive.key"),
            profiles: Profiles::open(&config.profiles_dir),
            turn: Default::default(),
        }),
        mirrors: Arc::new(mirrors::HostKeeper {
            shelf: shelf.clone(),
            images: Catalogue::open(&config.images_dir),
            profiles: Profiles::open(&config.profiles_dir),
            through: packages::through(&config),
            cache: config.images_dir.join(".cache"),
            cache_files: packages::files(&config),
            key: config.state_dir.join("archive.key"),
            turn: Default::default(),
        }),
        logs: config.state_dir.join("logs"),
        discovered: strangers.clone(),
        counters: Box::new(move || {
            let mut all = counters();
            all.append(&mut service_counters());
            for (k, n) in dhcp_counters.iter().flat_map(|c| c.snapshot()) {
                all.insert(format!("dhcp_{}", k.replace([' ', '-'], "_")), n);
            }
            if let Some(c) = &tftp_counts {
                let ended = c.ended().into_iter();
                all.extend(ended.map(|(k, n)| (format!("tftp_{}", k.replace('-', "_")), n)));
                all.insert("tftp_sent_bytes".to_owned(), c.sent_bytes());
                all.insert("tftp_active".to_owned(), c.active());
            }
            if let Some(c) = &package_counts {
                all.extend(c.counts.all());
                all.insert("cache_bytes".to_owned(), c.size());
            }
            all
        }),
        numbers: numbers.clone(),
        clock: Box::new(clock),
    });
    let boot = Arc::new(BootHttp { files, images: Catalogue::open(&config.images_dir), agent });

    let started = NewEvent::new(Time::now(), "server", "server.start", Outcome::Ok)
        .with("version", env!("CARGO_PKG_VERSION"));
    rack.log(vec![started]).await?;
    rack.take_up().await;
    api::installs::take_up(&ctx);
    let (s, called) = (stop.clone(), ctx.clone());
    tasks.spawn(async move {
        super::courier::run(called, s).await;
        ("webhooks", Ok(()))
    });

    if let Some(d) = dhcp {
        let s = stop.clone();
        tasks.spawn(async move { ("dhcp", d.run(s).await.map_err(Into::into)) });
    }
    if let Some(t) = tftp {
        let s = stop.clone();
        tasks.spawn(async move { ("tftp", t.run(s).await.map_err(Into::into)) });
    }
    services.start(&mut tasks, &stop);
    let mut node_routes = api::node_router(ctx.clone()).merge(crate::netboot::http::router(boot));
    node_routes = node_routes.merge(crate::netboot::mirror::router(shelf));
    if let Some(c) = packages {
        let installer =
            InstallerFiles { images: Catalogue::open(&config.images_dir), cache: c.clone() };
        node_routes = node_routes
            .merge(crate::cache::http::router(c))
            .merge(installer_files::router(Arc::new(installer)));
    }
    let counted = |routes, at| api::traffic::counted(routes, &numbers.traffic, at);
    let (s, node_routes) = (stop.clone(), counted(node_routes, "boot"));
    tasks.spawn(async move {
        ("boot http", listen::serve_boot(boot_listener, node_routes, s).await.map_err(Into::into))
    });
    let asked = || api::router(ctx.clone()).layer(axum::Extension(held.clone()));
    let (s, routes) = (stop.clone(), counted(asked().merge(window(&config, &ctx)?), "api"));
    tasks.spawn(async move {
        ("api", listen::serve_tls(api_listener, server_config, routes, s).await.map_err(Into::into))
    });
    let (s, routes, path) = (stop.clone(), counted(asked(), "local"), config.api_socket.clone());
    tasks.spawn(async move {
        ("local api", listen::serve_local(local, path, routes, s).await.map_err(Into::into))
    });
    let (s, rotation) = (stop.clone(), Rotation::new(held, None));
    tasks.spawn(async move { ("certificate", certificate::watch(ctx, rotation, LOOK, s).await) });
    let (s, kept) = (stop.clone(), store.clone());
    tasks.spawn(async move { ("claim on the store", claim::keep(&*kept, &owner, s).await) });
    if let Some(c) = certifier {
        let s = stop.clone();
        tasks.spawn(async move {
            c.run(s).await;
            ("certificates", Ok(()))
        });
    }
    let s = stop.clone();
    let watched = rack.clone();
    tasks.spawn(async move {
        watched.watch_deadlines(s).await;
        ("deadlines", Ok(()))
    });
    let (s, known, link) = (stop.clone(), rack.clone(), net.interface.clone());
    tasks.spawn(async move {
        let is_known = |mac| known.view().inventory.by_mac(mac).is_some();
        // Only a convenience: boots work without it.
        if let Err(e) = crate::netboot::ra::serve(&link, is_known, s.clone()).await {
            tracing::warn!(error = %e, "no IPv6 on the boot network: iPXE waits 17 s at each boot");
            s.cancelled().await;
        }
        ("router advertisements", Ok(()))
    });
    let recorder = tokio::spawn(Recorder { rack: rack.clone(), strangers }.run(sightings));
    if config.install.console {
        let s = stop.clone();
        tasks.spawn(async move {
            consoles.run(s).await;
            ("consoles", Ok(()))
        });
    }
    drop((view, observer));

    tracing::info!(
        interface = net.interface, address = %net.address, api = %config.api_listen,
        store = store.name(), nodes = rack.view().inventory.len(), "serving"
    );
    let outcome = tokio::select! {
        r = stop_signal() => r,
        Some(ended) = tasks.join_next() => match ended {
            Ok((what, Ok(()))) => Err(anyhow::anyhow!("{what} ended by itself")),
            Ok((what, Err(e))) => Err(e.context(format!("{what} failed"))),
            Err(e) => Err(e.into()),
        },
    };
    stop.cancel();
    let all_ended = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(Duration::from_secs(10), all_ended).await.is_err() {
        tracing::warn!("some parts did not stop within 10 s");
    }
    recorder.abort();
    let _ = rack.log(vec![NewEvent::new(Time::now(), "server", "server.stop", Outcome::Ok)]).await;
    tracing::info!("stopped");
    outcome
}

/// The operator's window: over TLS alone, never on the local socket.
fn window(config: &Config, ctx: &Arc<Ctx>) -> Result<axum::Router> {
    let software = match &config.deployment {
        Some(link) => Some(Arc::new(software::Remote::new(link)?) as Arc<dyn ui::Software>),
        None => None,
    };
    Ok(ui::router(ui::Window::new(ctx.clone(), true, software)))
}

fn make_dirs(c: &Config) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let mut private = std::fs::DirBuilder::new();
    private.recursive(true).mode(0o700);
    for d in [&c.state_dir, &c.state_dir.join("logs")] {
        private.create(d).with_context(|| d.display().to_string())?;
    }
    std::fs::create_dir_all(&c.images_dir).with_context(|| c.images_dir.display().to_string())
}

async fn strangers(store: &dyn Store) -> Result<Strangers> {
    let mut all = BTreeMap::new();
    for doc in store.list(kind::DISCOVERED).await? {
        let d: api::Discovered = serde_json::from_value(doc.value)?;
        all.insert(d.mac, d);
    }
    Ok(Arc::new(RwLock::new(all)))
}

fn names(c: &Config) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), c.network.address.to_string()];
    if let Ok(host) = std::fs::read_to_string("/proc/sys/kernel/hostname") {
        names.push(host.trim().to_owned());
    }
    names.extend(c.api_names.iter().cloned());
    names.retain(|n| !n.is_empty());
    names.dedup();
    names
}

fn counters(o: &observer::Observer) -> impl Fn() -> BTreeMap<String, u64> + Send + Sync + use<> {
    let o = o.clone();
    move || BTreeMap::from([("sightings_lost".to_owned(), o.lost())])
}
