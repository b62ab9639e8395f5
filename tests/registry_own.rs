//! What the program around the registry does in it: statements attached to an
//! image and read back.

mod registryd;

use provision::registry::{Digest, Reference, RepositoryName};
use registryd::{noise, on};

const KIND: &str = "application/vnd.in-toto+json";

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_attached_found_by_clients_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let r = on(dir.path()).await;
    let (subject, _) = r.push_image("team/app", "1", &noise(1, 5000)).await;
    let name: RepositoryName = "team/app".parse().unwrap();
    let tag: Reference = "1".parse().unwrap();
    assert_eq!(r.registry.digest_of(&name, &tag).await.unwrap(), Some(subject.clone()));
    assert_eq!(r.registry.digest_of(&name, &"2".parse().unwrap()).await.unwrap(), None);
    let absent = Reference::Digest(Digest::of(b"nothing"));
    assert_eq!(r.registry.digest_of(&name, &absent).await.unwrap(), None);

    let content = bytes::Bytes::from_static(b"{\"payload\":\"x\"}");
    let put = r.registry.attach(&name, &subject, KIND, "text/plain", content.clone());
    let artifact = put.await.unwrap();
    let list = r.get(&format!("/v2/team/app/referrers/{subject}?artifactType={KIND}")).await;
    let v: serde_json::Value = list.json().await.unwrap();
    assert_eq!(v["manifests"][0]["digest"], artifact.to_string(), "{v}");
    let read = r.registry.attached(&name, &subject, KIND).await.unwrap();
    assert_eq!(read, [(artifact, content.clone())]);
    assert!(r.registry.attached(&name, &subject, "other/kind").await.unwrap().is_empty());
    let nobody = Digest::of(b"nobody");
    assert!(r.registry.attach(&name, &nobody, KIND, "text/plain", content).await.is_err());
}
