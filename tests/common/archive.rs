//! A small archive as a distribution keeps it, served over loopback: real
//! packages of one file each, real indices, signed by a key of its own. What
//! is taken out of the pool stays in the index, as with a partial mirror.

#![allow(dead_code, reason = "each test binary uses some of these")]

use axum::Router;
use axum::extract::{Path as At, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use provision::archive::suite::Suite;
use provision::archive::{SigningKey, deb};
use provision::image::AddRequest;
use provision::image::cpio::Cpio;
use provision::image::installer::COMPONENTS;
use provision::image::sources::Source;
use provision::model::Digest;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

pub const KERNEL: &str = "6.12.107+deb13-amd64";
pub const OLDER: &str = "6.12.94+deb13-amd64";
/// Version of its installer.
pub const INSTALLER: &str = "20250803+deb13u7";
/// 2026-09-12.
pub const DATE: u64 = 1_789_199_741;

/// What the server does.
#[derive(Default)]
pub struct Served {
    dir: PathBuf,
    pub asked: Mutex<Vec<String>>,
    /// A path that contains it is answered only when `open`.
    pub gate: Mutex<Option<String>>,
    pub open: AtomicBool,
}

pub struct Archive {
    pub dir: tempfile::TempDir,
    pub uri: String,
    pub served: Arc<Served>,
    /// The signed list of the files of its installers; none where it is empty.
    pub sums: String,
    debs: String,
    udebs: String,
    runtime: Option<tokio::runtime::Runtime>,
}

async fn file(State(s): State<Arc<Served>>, At(path): At<String>) -> impl IntoResponse {
    s.asked.lock().unwrap().push(path.clone());
    let gated = s.gate.lock().unwrap().as_ref().is_some_and(|g| path.contains(g.as_str()));
    // The client is killed meanwhile; what is sent afterwards nobody reads.
    while gated && !s.open.load(Ordering::Relaxed) {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    match fs::read(s.dir.join(path)) {
        Ok(bytes) => (StatusCode::OK, bytes),
        Err(_) => (StatusCode::NOT_FOUND, Vec::new()),
    }
}

impl Archive {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let uri = format!("http://{}/debian", listener.local_addr().unwrap());
        let served = Arc::new(Served { dir: dir.path().to_owned(), ..Served::default() });
        let routes = Router::new().route("/debian/{*path}", get(file)).with_state(served.clone());
        runtime.spawn(async move { axum::serve(listener, routes).await });
        let (debs, udebs) = (String::new(), String::new());
        let sums = String::new();
        Self { dir, uri, served, sums, debs, udebs, runtime: Some(runtime) }
    }

    /// With the installer of one kernel and what a mirror takes.
    pub fn whole() -> Self {
        let mut a = Self::new();
        a.installer();
        a.packages();
        a.write();
        a
    }

    pub fn sources(&self) -> Option<Vec<Source>> {
        Some(vec![Source {
            uri: self.uri.clone(),
            suite: "trixie".into(),
            components: vec!["main".into()],
            signed_by: Some(self.dir.path().join("dist.gpg").display().to_string()),
        }])
    }

    /// Its installer, into a catalogue below `dir`.
    pub fn request(&self, dir: &Path) -> AddRequest {
        AddRequest {
            name: "debian-13-installer".parse().unwrap(),
            release: "debian-13".into(),
            sources: self.sources(),
            through: Vec::new(),
            images: dir.join("images"),
            cache: dir.join("cache"),
            cache_files: None,
            key: dir.join("archive.key"),
            repack: true,
            files: None,
            firmware: None,
        }
    }

    /// Packs a package with these files; `extra` are further lines of its
    /// control file.
    pub fn add(&mut self, name: &str, version: &str, extra: &str, files: &[(&str, &[u8])]) {
        let udeb = extra.contains("Section: debian-installer");
        let tree = self.dir.path().join("tree");
        let _ = fs::remove_dir_all(&tree);
        fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        for (path, bytes) in files {
            let to = tree.join(path);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::write(to, bytes).unwrap();
        }
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: nobody\n{extra}\
             Description: a test\n"
        );
        fs::write(tree.join("DEBIAN/control"), &control).unwrap();
        let end = if udeb { "udeb" } else { "deb" };
        let path = format!("pool/main/{name}/{name}_{version}_amd64.{end}");
        let to = self.dir.path().join(&path);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        deb::build(&tree, &to, DATE).unwrap();
        let bytes = fs::read(&to).unwrap();
        let listed = format!(
            "{control}Filename: {path}\nSize: {}\nSHA256: {}\n\n",
            bytes.len(),
            Digest::of(&bytes).to_hex()
        );
        if udeb { &mut self.udebs } else { &mut self.debs }.push_str(&listed);
    }

    fn component(&mut self, name: &str, more: &str, files: &[(&str, &[u8])]) {
        let kernel = [KERNEL, OLDER].into_iter().find(|k| name.contains(k));
        let extra = match kernel {
            Some(k) => format!(
                "Kernel-Version: {k}\nSection: debian-installer\nPriority: standard\n{more}"
            ),
            None => format!("Section: debian-installer\nPriority: standard\n{more}"),
        };
        let version = kernel.map_or("1.0", |k| k.split('+').next().unwrap());
        self.add(name, &format!("{version}-1"), &extra, files);
    }

    fn installer(&mut self) {
        for c in COMPONENTS {
            let depends = match c {
                "partman-ext3" => "Depends: cdebconf-udeb, e2fsprogs-udeb, ext4-modules\n",
                "grub-installer" => "Depends: os-prober-udeb, libc6-udeb (>= 2.41)\n",
                _ => "",
            };
            let kind = c.split("-modules").next().unwrap();
            for kernel in [KERNEL, OLDER] {
                let name = c.replace("{kernel}", kernel);
                let module = format!("lib/modules/{kernel}/kernel/{kind}/{kind}.ko.xz");
                let provides = format!("Provides: {kind}-modules\n");
                if name != c {
                    self.component(&name, &provides, &[(&module, b"old")]);
                } else if kernel == KERNEL {
                    self.component(&name, depends, &[("usr/share/x", b"x")]);
                }
            }
        }
        self.component("os-prober-udeb", "Depends: ntfs-3g-udeb\n", &[]);
        self.component("ntfs-3g-udeb", "", &[]);
        self.component("e2fsprogs-udeb", "", &[("usr/sbin/mke2fs", b"the udeb's")]);
        let status = ["cdebconf-udeb", "libc6-udeb", &format!("kernel-image-{KERNEL}-di")]
            .map(|n| format!("Package: {n}\nStatus: install ok unpacked\nVersion: 1\n\n"))
            .concat();
        let mut cpio = Cpio::default();
        let padded = format!("{status}{}", "#\n".repeat(200));
        cpio.file("var/lib/dpkg/status", 0o644, padded.as_bytes());
        let keys = self.key().public();
        let long = [&keys[..], &keys, &keys].concat();
        cpio.file("usr/share/keyrings/debian-archive-keyring.pgp", 0o644, &long);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&cpio.finish()).unwrap();
        let initrd = gz.finish().unwrap();
        let at = "usr/lib/debian-installer/images/13/amd64/text/debian-installer/amd64";
        self.add(
            "debian-installer-13-netboot-amd64",
            INSTALLER,
            "",
            &[(&format!("{at}/linux"), b"a kernel"), (&format!("{at}/initrd.gz"), &initrd)],
        );
        let modules: Vec<(String, String)> = COMPONENTS
            .iter()
            .filter_map(|c| c.split_once("-modules").map(|(kind, _)| kind))
            .map(|k| (format!("usr/lib/modules/{KERNEL}/kernel/{k}/{k}.ko.xz"), format!("new {k}")))
            .collect();
        let files: Vec<(&str, &[u8])> =
            modules.iter().map(|(p, t)| (p.as_str(), t.as_bytes())).collect();
        self.add(&format!("linux-image-{KERNEL}"), "6.12.107-1", "", &files);
        self.add(
            "e2fsprogs",
            "1.47",
            "Priority: required\n",
            &[
                ("usr/sbin/mke2fs", b"the package's"),
                ("etc/mke2fs.conf", b"[defaults]"),
                ("usr/share/doc/e2fsck", b"no"),
            ],
        );
        self.add("libext2fs2t64", "1.47", "", &[("usr/lib/x86_64-linux-gnu/libext2fs.so.2", b"l")]);
        self.add("libcom-err2", "1.47", "", &[("usr/lib/x86_64-linux-gnu/libcom_err.so.2", b"c")]);
    }

    /// All that a mirror asks for by name.
    fn packages(&mut self) {
        let names = "linux-image-amd64 initramfs-tools busybox zstd openssh-server sudo \
            ca-certificates chrony console-setup keyboard-configuration locales eject pciutils usbutils \
            laptop-detect dosfstools udev grub-common os-prober tasksel tasksel-data \
            installation-report qemu-guest-agent grub-efi-amd64-signed shim-signed efibootmgr \
            mokutil unwanted";
        for name in names.split_whitespace() {
            self.add(name, "1.0", "", &[]);
        }
        self.add("grub-pc", "2", "Conflicts: grub-efi-amd64\n", &[]);
        self.add("grub-efi-amd64", "2", "Conflicts: grub-pc\n", &[]);
        self.add("init", "1", "Priority: important\nDepends: first | second\n", &[]);
        self.add("first", "1", "", &[]);
        self.add("second", "1", "", &[]);
        self.add("docker.io", "26", "Depends: libc++ (>= 1)\n", &[("usr/bin/docker", b"engine")]);
        self.add("libc++", "1", "", &[]);
    }

    fn key(&self) -> SigningKey {
        SigningKey::open(&self.dir.path().join("dist.key")).unwrap()
    }

    /// Writes and signs the indices.
    pub fn write(&self) {
        let key = self.key();
        fs::write(self.dir.path().join("dist.gpg"), key.public()).unwrap();
        let mut indices = vec![
            ("main/binary-amd64/Packages".into(), self.debs.clone()),
            ("main/debian-installer/binary-amd64/Packages".into(), self.udebs.clone()),
        ];
        if !self.sums.is_empty() {
            let path = format!("main/installer-amd64/{INSTALLER}/images/SHA256SUMS");
            indices.push((path, self.sums.clone()));
        }
        let suite = Suite {
            name: "trixie",
            description: "a test",
            date: DATE,
            components: &["main"],
            indices,
        };
        suite.write(self.dir.path(), &key).unwrap();
    }

    /// The file of a package in the pool.
    pub fn file(&self, name: &str) -> PathBuf {
        let dir = self.dir.path().join("pool/main").join(name);
        fs::read_dir(dir).unwrap().next().unwrap().unwrap().path()
    }

    /// In the index, and not in the pool.
    pub fn lose(&self, name: &str) {
        fs::remove_file(self.file(name)).unwrap();
    }

    /// Whether the archive has this path.
    pub fn has(&self, path: &str) -> bool {
        self.dir.path().join(path).exists()
    }
}

impl Drop for Archive {
    /// Also from a thread of another runtime, which may not wait.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Paths below `dir`, sorted, without those that begin with a dot at the top.
pub fn visible(dir: &Path) -> Vec<String> {
    let mut all: Vec<String> = fs::read_dir(dir)
        .map(|d| d.map(|e| e.unwrap().file_name().into_string().unwrap()).collect())
        .unwrap_or_default();
    all.retain(|n| !n.starts_with('.'));
    all.sort();
    all
}
