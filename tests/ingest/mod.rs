//! A registry made of directories, a store made of memory, and a base image
//! made of busybox: what the pipeline is handed in these tests.

#![allow(dead_code, reason = "each test binary uses some of these")]

use async_trait::async_trait;
use provision::ingest::layout::{self, ImageConfig};
use provision::ingest::{Keep, Pipeline, PipelineSettings, Request, Run, RunState, Shelf, Source};
use provision::model::Digest;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Our registry's name, as Dockerfiles write it.
pub const HOST: &str = "reg.test:5000";

/// Repository, subject, type, content.
type Referrer = (String, String, String, Vec<u8>);

/// Images as OCI layouts, by reference.
#[derive(Default)]
pub struct Directories {
    at: PathBuf,
    images: Mutex<BTreeMap<String, Digest>>,
    pub referrers: Mutex<Vec<Referrer>>,
}

impl Directories {
    fn place(&self, digest: &str) -> PathBuf {
        self.at.join(digest.replace(':', "-"))
    }

    pub fn put(&self, from: &Path, repository: &str, tag: &str) -> String {
        let digest = layout::image(from).unwrap();
        let to = self.place(&digest.to_string());
        if !to.exists() {
            run("cp", &["-r".as_ref(), from.as_ref(), to.as_ref()]);
        }
        let mut images = self.images.lock().unwrap();
        images.insert(format!("{repository}:{tag}"), digest);
        images.insert(format!("{repository}@{digest}"), digest);
        digest.to_string()
    }

    /// A file of an image's layers, the last that has it.
    pub fn file(&self, digest: &str, path: &str) -> Option<String> {
        let at = self.place(digest).join("blobs/sha256");
        let blob =
            |d: &serde_json::Value| at.join(d.as_str().unwrap().trim_start_matches("sha256:"));
        let manifest = fs::read(blob(&digest.into())).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        manifest["layers"].as_array().unwrap().iter().rev().find_map(|l| {
            let out = Command::new("tar")
                .arg("-xzOf")
                .arg(blob(&l["digest"]))
                .arg(path)
                .output()
                .unwrap();
            out.status.success().then(|| String::from_utf8(out.stdout).unwrap())
        })
    }
}

#[async_trait]
impl Shelf for Directories {
    async fn resolve(&self, reference: &str) -> Result<Option<String>, String> {
        Ok(self.images.lock().unwrap().get(reference).map(ToString::to_string))
    }

    async fn export(&self, reference: &str, layout: &Path) -> Result<String, String> {
        let digest = self.images.lock().unwrap().get(reference).copied();
        let digest = digest.ok_or_else(|| format!("no {reference}"))?.to_string();
        run("cp", &["-r".as_ref(), self.place(&digest).as_ref(), layout.as_ref()]);
        Ok(digest)
    }

    async fn import(&self, layout: &Path, repository: &str, tag: &str) -> Result<String, String> {
        Ok(self.put(layout, repository, tag))
    }

    async fn attach(
        &self,
        repository: &str,
        subject: &str,
        artifact_type: &str,
        media_type: &str,
        content: &[u8],
    ) -> Result<String, String> {
        assert_eq!(media_type, "application/vnd.dsse.envelope.v1+json");
        let entry = (repository.into(), subject.into(), artifact_type.into(), content.to_vec());
        self.referrers.lock().unwrap().push(entry);
        Ok(Digest::of(content).to_string())
    }

    async fn referrers(
        &self,
        repository: &str,
        subject: &str,
        artifact_type: &str,
    ) -> Result<Vec<Vec<u8>>, String> {
        let all = self.referrers.lock().unwrap();
        let fits = |e: &&Referrer| e.0 == repository && e.1 == subject && e.2 == artifact_type;
        Ok(all.iter().filter(fits).map(|e| e.3.clone()).collect())
    }
}

/// Records, with every state they went through.
#[derive(Default)]
pub struct Memory {
    pub saved: Mutex<Vec<Run>>,
}

#[async_trait]
impl Keep for Memory {
    async fn save(&self, run: &Run) -> Result<(), String> {
        self.saved.lock().unwrap().push(run.clone());
        Ok(())
    }

    async fn load(&self) -> Result<Vec<Run>, String> {
        let all = self.saved.lock().unwrap();
        let last: BTreeMap<String, Run> =
            all.iter().map(|r| (r.id.to_string(), r.clone())).collect();
        Ok(last.into_values().collect())
    }
}

pub struct Bench {
    pub dir: tempfile::TempDir,
    pub shelf: Arc<Directories>,
    pub keep: Arc<Memory>,
    pub pipeline: Arc<Pipeline>,
}

/// A pipeline with a busybox as `base/busybox:1`.
pub async fn bench(change: impl FnOnce(&mut PipelineSettings)) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let shelf = Arc::new(Directories { at: dir.path().join("registry"), ..Default::default() });
    fs::create_dir(dir.path().join("registry")).unwrap();
    fs::create_dir(dir.path().join("sources")).unwrap();
    busybox(&dir.path().join("busybox"));
    shelf.put(&dir.path().join("busybox"), "base/busybox", "1");
    let keep = Arc::new(Memory::default());
    let mut settings = PipelineSettings::new(dir.path().join("state"));
    settings.registry_hosts = vec![HOST.into()];
    settings.source_roots = vec![dir.path().join("sources")];
    settings.deadline = Duration::from_secs(120);
    change(&mut settings);
    let pipeline = Pipeline::new(settings, shelf.clone(), keep.clone()).await.unwrap();
    Bench { dir, shelf, keep, pipeline }
}

impl Bench {
    /// A folder with these files.
    pub fn folder(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let at = self.dir.path().join("sources").join(name);
        for (path, text) in files {
            let path = at.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        at
    }

    /// A wish for a folder with just a Dockerfile.
    pub fn wish(&self, name: &str, dockerfile: &str) -> Request {
        Request::new(Source::Folder(self.folder(name, &[("Dockerfile", dockerfile)])), "ada")
    }

    /// Submits and waits.
    pub async fn build(&self, request: Request) -> Run {
        let run = self.pipeline.submit(request).await.unwrap();
        self.pipeline.finished(&run.id).await.unwrap()
    }

    /// Submits, waits, and wants it done.
    pub async fn built(&self, request: Request) -> Run {
        let run = self.build(request).await;
        assert_eq!(run.state, RunState::Done, "{:?}\n{}", run.reason, self.log(&run));
        run
    }

    pub fn log(&self, run: &Run) -> String {
        fs::read_to_string(&run.log).unwrap_or_default()
    }
}

pub fn run(program: &str, arguments: &[&std::ffi::OsStr]) {
    let done = Command::new(program).args(arguments).output().unwrap();
    assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
}

/// The smallest image with a shell.
fn busybox(layout: &Path) {
    let program = fs::read("/bin/busybox").expect("busybox-static, see scripts/deps.sh");
    let mut tar = tar::Builder::new(Vec::new());
    let mut put = |path: &str, kind: tar::EntryType, mode: u32, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, path, bytes).unwrap();
    };
    for d in ["bin", "tmp", "proc", "etc", "sys", "dev"] {
        put(d, tar::EntryType::Directory, 0o755, b"");
    }
    put("bin/busybox", tar::EntryType::Regular, 0o755, &program);
    put("bin/sh", tar::EntryType::Regular, 0o755, &program);
    let config = ImageConfig {
        architecture: if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }.into(),
        created: 0,
        created_by: "a test".into(),
        cmd: vec!["sh".into()],
        labels: BTreeMap::new(),
    };
    layout::write(&tar.into_inner().unwrap()[..], &config, layout).unwrap();
}
