//! Garbage collection and a client at the same link at the same moment: a
//! storage that lets the other one go first at the worst point. Found by the
//! ten-minute run, where it came once in 3,500 rounds.

mod registryd;

use async_trait::async_trait;
use bytes::Bytes;
use provision::registry::storage::{
    Append, BlobStream, Children, Lease, Shelf, Stat, Storage, StorageError,
};
use provision::registry::{Digest, Settings, UploadId};
use registryd::*;
use reqwest::Method;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Work = futures::future::BoxFuture<'static, ()>;

/// When another one comes in between, and what it does.
struct Between {
    /// Before or after the call.
    before: bool,
    call: &'static str,
    key: String,
    work: Work,
}

struct Meddled {
    inner: Arc<dyn Storage>,
    between: Mutex<Option<Between>>,
}

impl Meddled {
    async fn at(&self, before: bool, call: &str, key: &str) {
        let due = {
            let mut b = self.between.lock().unwrap();
            let fits = |b: &mut Between| b.before == before && b.call == call && b.key == key;
            b.take_if(fits)
        };
        if let Some(b) = due {
            b.work.await;
        }
    }
}

#[async_trait]
impl Storage for Meddled {
    async fn read(&self, key: &str, limit: u64) -> Result<Option<Bytes>, StorageError> {
        self.inner.read(key, limit).await
    }
    async fn stat(&self, key: &str) -> Result<Option<Stat>, StorageError> {
        self.inner.stat(key).await
    }
    async fn write(&self, key: &str, bytes: Bytes) -> Result<(), StorageError> {
        self.inner.write(key, bytes).await
    }
    async fn create(&self, key: &str, bytes: Bytes) -> Result<bool, StorageError> {
        self.inner.create(key, bytes).await
    }
    async fn touch(&self, key: &str) -> Result<bool, StorageError> {
        self.at(true, "touch", key).await;
        let r = self.inner.touch(key).await;
        self.at(false, "touch", key).await;
        r
    }
    async fn remove(&self, key: &str) -> Result<bool, StorageError> {
        self.at(true, "remove", key).await;
        self.inner.remove(key).await
    }
    async fn children(&self, key: &str) -> Result<Children, StorageError> {
        self.inner.children(key).await
    }
    async fn begin(&self, id: UploadId) -> Result<(), StorageError> {
        self.inner.begin(id).await
    }
    async fn append(&self, id: UploadId) -> Result<Box<dyn Append>, StorageError> {
        self.inner.append(id).await
    }
    async fn uploaded(&self, id: UploadId) -> Result<Option<u64>, StorageError> {
        self.inner.uploaded(id).await
    }
    async fn read_upload(&self, id: UploadId) -> Result<BlobStream, StorageError> {
        self.inner.read_upload(id).await
    }
    async fn place(&self, id: UploadId, d: &Digest, length: u64) -> Result<(), StorageError> {
        self.inner.place(id, d, length).await
    }
    async fn discard(&self, id: UploadId) -> Result<(), StorageError> {
        self.inner.discard(id).await
    }
    async fn uploads(&self) -> Result<Vec<(UploadId, Stat)>, StorageError> {
        self.inner.uploads().await
    }
    async fn blob(&self, d: &Digest) -> Result<Option<(Stat, Shelf)>, StorageError> {
        self.inner.blob(d).await
    }
    async fn open(&self, d: &Digest, r: Range<u64>) -> Result<Option<BlobStream>, StorageError> {
        self.inner.open(d, r).await
    }
    async fn blobs(&self, shelf: Shelf) -> Result<Vec<(Digest, Stat)>, StorageError> {
        self.inner.blobs(shelf).await
    }
    async fn set_aside(&self, d: &Digest) -> Result<(), StorageError> {
        self.inner.set_aside(d).await
    }
    async fn restore(&self, d: &Digest) -> Result<(), StorageError> {
        self.inner.restore(d).await
    }
    async fn purge(&self, d: &Digest) -> Result<(), StorageError> {
        self.inner.purge(d).await
    }
    async fn lease(&self) -> Result<Option<Lease>, StorageError> {
        self.inner.lease().await
    }
    async fn health(&self) -> Result<(), StorageError> {
        self.inner.health().await
    }
    async fn tidy(&self, age: Duration) -> Result<u64, StorageError> {
        self.inner.tidy(age).await
    }
}

/// `base` is tagged; `a` mounted it once and names it nowhere, so that its
/// link is garbage to every collection.
async fn scene(dir: &std::path::Path) -> (Arc<Meddled>, Arc<Served>, Digest) {
    let inner = Settings::local(dir).unwrap().storage;
    let meddled = Arc::new(Meddled { inner, between: Mutex::default() });
    let mut settings = Settings::on(meddled.clone());
    settings.grace = Duration::ZERO;
    settings.wait = Duration::from_secs(3600);
    let s = Arc::new(serve(settings).await);
    s.push_image("base", "v1", b"shared").await;
    let d = Digest::of(b"shared");
    mount(&s, &d).await;
    (meddled, s, d)
}

async fn mount(s: &Served, d: &Digest) {
    let url = format!("/v2/a/blobs/uploads/?mount={d}&from=base");
    assert_eq!(s.request(Method::POST, &url).send().await.unwrap().status(), 201);
}

async fn still_mounted(s: &Served, d: &Digest) {
    let r = s.request(Method::HEAD, &format!("/v2/a/blobs/{d}")).send().await.unwrap();
    assert_eq!(r.status(), 200, "it was mounted a moment ago");
}

/// Collection moves the link aside while a client is giving it a new time.
#[tokio::test(flavor = "multi_thread")]
async fn a_mount_outlives_a_collection_in_its_middle() {
    for before in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (storage, s, d) = scene(dir.path()).await;
        let other = s.clone();
        *storage.between.lock().unwrap() = Some(Between {
            before,
            call: "touch",
            key: format!("repos/a/_blobs/sha256-{}", d.hex()),
            work: Box::pin(
                async move { drop(other.registry.collect_garbage(false).await.unwrap()) },
            ),
        });
        mount(&s, &d).await;
        assert!(storage.between.lock().unwrap().is_none(), "nothing came in between");
        still_mounted(&s, &d).await;
    }
}

/// A client mounts while collection is about to remove the link.
#[tokio::test(flavor = "multi_thread")]
async fn a_collection_sees_the_mount_in_its_middle() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, s, d) = scene(dir.path()).await;
    let (other, blob) = (s.clone(), d.clone());
    *storage.between.lock().unwrap() = Some(Between {
        before: true,
        call: "remove",
        key: format!("repos/a/_blobs/sha256-{}", d.hex()),
        work: Box::pin(async move { mount(&other, &blob).await }),
    });
    s.registry.collect_garbage(false).await.unwrap();
    assert!(storage.between.lock().unwrap().is_none(), "nothing came in between");
    still_mounted(&s, &d).await;
}
