//! The registry on a bucket, with two servers on it: in memory, and on an S3
//! server.

mod registryd;

use object_store::memory::InMemory;
use provision::registry::storage::object::Object;
use provision::registry::{Digest, RegistryError, Settings};
use registryd::*;
use reqwest::Method;
use std::sync::Arc;
use std::time::Duration;

fn shared(store: &Object) -> Settings {
    let mut s = Settings::on(Arc::new(store.clone()));
    (s.grace, s.wait) = (Duration::ZERO, Duration::ZERO);
    s
}

async fn two_servers_share(store: Object) {
    let (one, two) = (serve(shared(&store)).await, serve(shared(&store)).await);
    // An upload begun at one server is finished at the other.
    let r = one.request(Method::POST, "/v2/a/b/blobs/uploads/").send().await.unwrap();
    let at = location(&r);
    let big = noise(1, 20_000_003);
    let (left, right) = big.split_at(9_000_001);
    let r = one.request(Method::PATCH, &at).body(left.to_vec()).send().await.unwrap();
    assert_eq!(r.status(), 202);
    let r = two.request(Method::PATCH, &at).header("content-range", "5-9").body("wrong").send();
    let r = r.await.unwrap();
    assert_eq!((r.status().as_u16(), header(&r, "range").as_str()), (416, "0-9000000"));
    let r = two.request(Method::PATCH, &at).body(right.to_vec()).send().await.unwrap();
    assert_eq!(r.status(), 202);
    let d = Digest::of(&big);
    let r = one.request(Method::PUT, &format!("{at}?digest={d}")).send().await.unwrap();
    assert_eq!(r.status(), 201, "{}", r.text().await.unwrap());
    let blob = format!("/v2/a/b/blobs/{d}");
    assert_eq!(two.get(&blob).await.bytes().await.unwrap(), big);
    let r = two.request(Method::GET, &blob).header("range", "bytes=8999990-9000010");
    let r = r.send().await.unwrap();
    assert_eq!(r.status(), 206);
    assert_eq!(r.bytes().await.unwrap(), &big[8_999_990..9_000_011]);
    // Pushed twice at the same moment, stored once.
    let same = noise(2, 100_000);
    tokio::join!(one.push_blob("a/b", &same), two.push_blob("c", &same));
    one.push_image("a/b", "v1", &big).await;
    let r = two.get("/v2/a/b/manifests/v1").await;
    assert_eq!(r.status(), 200);
    let r = two.get("/v2/a/b/tags/list").await;
    assert_eq!(r.json::<serde_json::Value>().await.unwrap()["tags"], serde_json::json!(["v1"]));
    assert_eq!(one.registry.verify_store().await.unwrap().damage, []);
    // Garbage: what is named stays, what is not goes in its steps.
    for _ in 0..4 {
        match two.registry.collect_garbage(false).await {
            Ok(_) => {}
            // The lease is given back a moment after a run ends.
            Err(RegistryError::Collecting) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(e) => panic!("{e}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(one.get(&format!("/v2/c/blobs/{}", Digest::of(&same))).await.status(), 404);
    assert_eq!(one.get(&blob).await.bytes().await.unwrap(), big);
    assert_eq!(one.registry.verify_store().await.unwrap().damage, []);
    one.push_image("c", "v2", &same).await;
    assert_eq!(two.get("/v2/c/manifests/v2").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_share_a_bucket_in_memory() {
    two_servers_share(Object::new(Arc::new(InMemory::new()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_share_a_bucket_on_s3() {
    let prefix = provision::registry::UploadId::new().to_string();
    two_servers_share(bucket(&prefix).open().unwrap()).await;
}
