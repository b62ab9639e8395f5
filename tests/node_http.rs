//! The boot network's HTTP as a node's agent meets it: leave to write the
//! disk, and the files of the very image its plan names.

mod common;

use common::desk::{self, Flaky, Gated, by_installer, name, order, stocked, stocked_at};
use common::nobody::{NoMirrors, Nothing};
use provision::agent::AgentError;
use provision::agent::partition::partition;
use provision::agent::server::{RangeError, Server, ServerError};
use provision::agent::stream::fetch_index;
use provision::api::{self, Ctx};
use provision::auth::MasterKey;
use provision::config;
use provision::image::catalogue::Catalogue;
use provision::image::pack::pack;
use provision::lifecycle::Rack;
use provision::model::plan::RootfsPlan;
use provision::model::{BuildId, Digest, Mac, NodeName, Phase};
use provision::netboot::decide::Server as BootAddress;
use provision::netboot::files::BootFiles;
use provision::netboot::http::{BootHttp, router};
use provision::netboot::script::Scripts;
use provision::netboot::{BootNode, Boots, Fetch};
use provision::profile::Profiles;
use provision::store::EventQuery;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

impl Boots for Nothing {
    fn by_mac(&self, _: Mac) -> Option<BootNode> {
        None
    }
    fn by_address(&self, _: Ipv4Addr) -> Option<BootNode> {
        None
    }
    fn fetched(&self, _: &NodeName, _: Fetch) {}
    fn rendered(&self, _: &BuildId, _: &str, _: &str) {}
}

/// A server on loopback, without anything that needs a network of its own.
struct Bench {
    dir: tempfile::TempDir,
    rack: Arc<Rack>,
    key: Arc<MasterKey>,
    base: String,
    task: tokio::task::JoinHandle<()>,
}

impl Bench {
    async fn start(store: &Arc<Flaky>, arm: &Arc<Gated>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "state_dir = '{}'\n[network]\ninterface='e'\naddress='10.1.0.1'\n\
             subnet='10.1.0.0/24'\nrange=['10.1.0.10','10.1.0.99']\n",
            dir.path().display()
        );
        let config = Arc::new(config::parse(&text, "bench", Path::new("/")).unwrap());
        let rack = desk::rack(store, arm, "").await;
        let key = Arc::new(MasterKey::open(&dir.path().join("secret.key")).unwrap());
        let address = BootAddress { address: [10, 1, 0, 1].into(), http_port: 8080 };
        let scripts = Scripts::new(config.templates_dir.clone(), address, config.network.clone());
        let preseeds = provision::preseed::Preseeds::new(config.templates_dir.clone());
        let files = BootFiles::new(config.loaders_dir.clone(), scripts.clone(), Arc::new(Nothing));
        let images = Catalogue::open(&config.images_dir);
        let boot = BootHttp { files, images: images.clone(), agent: Default::default() };
        let ctx = Arc::new(Ctx {
            certifier: None,
            profiles: Profiles::open(&config.profiles_dir),
            config,
            rack: rack.clone(),
            images,
            through: Vec::new(),
            scripts,
            preseeds,
            key: key.clone(),
            tokens: Default::default(),
            refusals: Default::default(),
            answering: Default::default(),
            webhooks: Default::default(),
            bmcs: Arc::new(Nothing),
            builder: Arc::new(Nothing),
            mirrors: Arc::new(NoMirrors(provision::mirror::Mirrors::open(dir.path()))),
            logs: dir.path().to_owned(),
            discovered: Default::default(),
            counters: Box::new(Default::default),
            numbers: Default::default(),
            clock: Box::new(|| Some(true)),
        });
        let routes = api::node_router(ctx).merge(router(Arc::new(boot)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let service = routes.into_make_service_with_connect_info::<SocketAddr>();
        let task = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self { dir, rack, key, base, task }
    }

    fn agent(&self, build: &BuildId) -> Server {
        Server::new(&self.base, self.key.build_token(build))
    }

    /// Makes the image `debian-12` anew, its disk full of `byte`.
    fn make_image(&self, byte: u8) -> RootfsPlan {
        let dir = self.dir.path().join("images/debian-12");
        std::fs::create_dir_all(&dir).unwrap();
        let raw = self.dir.path().join("raw");
        std::fs::write(&raw, vec![byte; 1 << 20]).unwrap();
        let index = pack(&raw, &dir.join("rootfs.zst"), |_, _| true).unwrap();
        std::fs::write(dir.join("rootfs.idx"), index.to_text()).unwrap();
        let mut text = format!(
            "format = 1\nname = \"debian-12\"\nos = \"debian\"\nrelease = \"12\"\n\
             version = \"12.0\"\narch = \"x86_64\"\nmethod = \"image\"\nkernel_args = \"\"\n\
             kernel = \"6.1\"\n[rootfs]\nbytes = {}\ndata = {}\n[provenance]\n\
             source_date_epoch = 0\nsuite = \"bookworm\"\ncomponents = []\n\
             packages = \"{}\"\npackage_count = 0\nbuilder = \"0\"\n",
            index.bytes,
            index.data_bytes(),
            Digest::of(b"")
        );
        for f in ["rootfs.zst", "rootfs.idx"] {
            let bytes = std::fs::read(dir.join(f)).unwrap();
            text += &format!(
                "[files.\"{f}\"]\nsha256 = \"{}\"\nsize = {}\n",
                Digest::of(&bytes),
                bytes.len()
            );
        }
        std::fs::write(dir.join("image.toml"), text).unwrap();
        let images = Catalogue::open(self.dir.path().join("images"));
        let image = images.get(&"debian-12".parse().unwrap()).unwrap();
        image.rootfs_plan(None, "/images").unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_is_not_touched_once_its_build_was_cancelled() {
    let (store, arm) = (stocked().await, Gated::new(9));
    let bench = Bench::start(&store, &arm).await;
    let o = bench.rack.install(order(1)).await.unwrap();
    let agent = bench.agent(o.build.as_ref().unwrap());
    let disk = bench.dir.path().join("disk");
    std::fs::write(&disk, b"somebody's data").unwrap();
    let (a, d) = (agent.clone(), disk.clone());
    let asked = move || match a.may_write("vda") {
        // A file is no block device: writing begins, and ends with an error.
        Ok(leave) => partition(&d, false, leave).map(drop).map_err(|e| e.to_string()),
        Err(e @ ServerError::Over(_)) => match e.in_phase(Phase::Disk) {
            AgentError::Over(text) => Err(format!("over: {text}")),
            other => Err(format!("{other:?}")),
        },
        Err(e) => Err(e.to_string()),
    };
    bench.rack.cancel(&o.id, "ada").await.unwrap();
    let refused = tokio::task::spawn_blocking(asked.clone()).await.unwrap().unwrap_err();
    assert!(refused.starts_with("over: ") && refused.contains("410"), "{refused}");
    assert_eq!(std::fs::read(&disk).unwrap(), b"somebody's data");

    // The same question of a build that runs is granted, and is in its record.
    let o = bench.rack.install(order(2)).await.unwrap();
    let agent = bench.agent(o.build.as_ref().unwrap());
    tokio::task::spawn_blocking(move || agent.may_write("sda 10 GB").unwrap()).await.unwrap();
    let b = bench.rack.running_build(&name("node02")).unwrap();
    assert_eq!(b.phase, Phase::Disk);
    let reason = b.current().unwrap().reason.clone();
    assert_eq!(reason.as_deref(), Some("partitioning sda 10 GB"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_image_was_rebuilt_is_told_so_and_gets_no_byte_of_another() {
    let (store, arm) = (stocked().await, Gated::new(9));
    let bench = Bench::start(&store, &arm).await;
    let agent = bench.agent(&BuildId::generate());
    let first = bench.make_image(1);
    assert!(first.data.starts_with("/images/debian-12/") && first.data.ends_with("/rootfs.zst"));
    let (a, plan) = (agent.clone(), first.clone());
    let index = tokio::task::spawn_blocking(move || fetch_index(&a, &plan)).await.unwrap().unwrap();
    assert_eq!(index.bytes, 1 << 20);

    let second = bench.make_image(2);
    assert_ne!(first.data, second.data);
    let (a, plan) = (agent.clone(), first.clone());
    let said = tokio::task::spawn_blocking(move || {
        let index = fetch_index(&a, &plan).unwrap_err().to_string();
        let data = match a.get_range(&plan.data, 0, 10) {
            Err(RangeError::Gone(why)) => why,
            Err(e) => format!("{e:?}"),
            Ok(_) => "bytes".to_owned(),
        };
        (index, data)
    });
    let want = "image debian-12 was rebuilt while this build ran: install again";
    let (index, data) = said.await.unwrap();
    assert!(index.contains(want), "{index}");
    assert_eq!(data, want);

    // A new plan works.
    let read = tokio::task::spawn_blocking(move || {
        fetch_index(&agent, &second).unwrap();
        let mut bytes = Vec::new();
        let mut body = agent.get_range(&second.data, 0, 4).map_err(|e| format!("{e:?}")).unwrap();
        body.read_to_end(&mut bytes).unwrap();
        bytes
    });
    assert_eq!(read.await.unwrap(), [0x28, 0xb5, 0x2f, 0xfd], "a zstd frame");
}

fn fetch(url: String, token: Option<&str>) -> (u16, String) {
    let mut request = ureq::get(&url).config().http_status_as_error(false).build();
    if let Some(t) = token {
        request = request.header("Authorization", format!("Bearer {t}"));
    }
    let mut r = request.call().unwrap();
    (r.status().as_u16(), r.body_mut().read_to_string().unwrap())
}

/// M14 M22.
#[tokio::test(flavor = "multi_thread")]
async fn an_installer_gets_its_files_and_nobody_elses() {
    let (own, arm) = (Ipv4Addr::LOCALHOST, Gated::new(9));
    let store = stocked_at(own).await;
    let bench = Bench::start(&store, &arm).await;
    let o = bench.rack.install(by_installer(1, own)).await.unwrap();
    let build = o.build.unwrap();
    let token = bench.key.build_token(&build).expose().to_owned();
    let mac = |n: u8| desk::spec(n).macs[0].hyphenated().to_string();
    let (base, own_mac, others_mac, t) = (bench.base.clone(), mac(1), mac(2), token.clone());
    let asked = move || {
        let get = |path: &str, token| fetch(format!("{base}{path}"), token);
        let (status, preseed) = get(&format!("/boot/{own_mac}/preseed.cfg"), None);
        assert_eq!(status, 200, "{preseed}");
        assert!(preseed.contains(&format!("d-i provision/token password {t}")));
        assert!(preseed.contains("mirror/http/directory string /installer/debian-13-installer"));
        assert!(preseed.contains("mirror/udeb/suite string trixie-provision"));
        // No other node's, no other installer's, nothing without the token.
        assert_eq!(get(&format!("/boot/{others_mac}/preseed.cfg"), None).0, 404);
        assert_eq!(get(&format!("/boot/{own_mac}/user-data"), None).0, 404);
        assert_eq!(get("/node/early", None).0, 401);
        assert_eq!(get("/node/late", Some("b-nonsense.0")).0, 401);
        let (status, early) = get("/node/early", Some(&t));
        assert!(status == 200 && early.starts_with("#!/bin/sh\n"), "{status} {early}");
        // As `early.sh` says it: the clock was right, then not.
        for off in [0, -1_799_900_000] {
            let report =
                format!("{{\"phase\":\"installer\",\"message\":\"it runs\",\"clock_off\":{off}}}");
            let request = ureq::post(format!("{base}/node/phase"))
                .header("Authorization", format!("Bearer {t}"))
                .header("Content-Type", "application/json");
            assert_eq!(request.send(report.as_str()).unwrap().status().as_u16(), 204);
        }
        let (status, late) = get("/node/late", Some(&t));
        assert!(status == 200 && late.contains("provision-agent"), "{status} {late}");
        // From here on the disk boots.
        assert_eq!(get(&format!("/boot/{own_mac}/preseed.cfg"), None).0, 404);
    };
    tokio::task::spawn_blocking(asked).await.unwrap();
    assert_eq!(bench.rack.running_build(&name("node01")).unwrap().phase, Phase::Profile);
    let clock = EventQuery { action: Some("agent.clock".into()), limit: 9, ..Default::default() };
    let told = bench.rack.store().query(&clock).await.unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].event.detail["off_seconds"], "-1799900000");
    let kept = bench.rack.store().list(provision::store::kind::RENDERING).await.unwrap();
    let files: Vec<&str> = kept.iter().filter_map(|d| d.value["file"].as_str()).collect();
    assert_eq!(files, ["preseed.cfg", "early.sh", "late.sh"]);
    for doc in &kept {
        let text = doc.value["text"].as_str().unwrap();
        assert!(!text.contains(&token) && doc.value["templates"].is_object());
    }
}

/// shim writes two slashes before its next stage, and waits for ever for the
/// body of an answer that has none.
#[tokio::test(flavor = "multi_thread")]
async fn shim_gets_its_next_stage_and_an_answer_with_a_body_for_what_is_not_there() {
    let (store, arm) = (stocked().await, Gated::new(0));
    let bench = Bench::start(&store, &arm).await;
    let get = |path: &str| {
        let url = format!("{}{path}", bench.base);
        let curl = std::process::Command::new("curl").args(["-s", "--path-as-is", &url]).output();
        String::from_utf8_lossy(&curl.unwrap().stdout).into_owned()
    };

    let loader = get("/boot/loader//snponly.efi");
    assert!(loader.starts_with("MZ"));
    assert_eq!(get("/boot/loader/revocations_sku.efi"), "not found\n");
}
