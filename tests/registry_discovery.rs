//! OCI Distribution Specification 1.1, content discovery: tags (end-8),
//! referrers (end-12), catalogue; and what operators ask: garbage collection,
//! verification, OCI layouts.

mod registryd;

use provision::registry::{Deed, Digest, Seen, Verdict, Witness};
use registryd::*;
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;

async fn json_of(s: &Served, path: &str) -> (Value, String) {
    let r = s.get(path).await;
    assert_eq!(r.status(), 200, "{path}");
    let link = header(&r, "link");
    (r.json().await.unwrap(), link)
}

/// end-8a: "tags MUST be in lexical order"; end-8b: "`n`", "`last`", "MUST NOT
/// include last", a `Link` when there is more.
#[tokio::test]
async fn end_8_tags_are_listed_in_order_and_in_pages() {
    let dir = tempfile::tempdir().unwrap();
    let s = on(dir.path()).await;
    for t in ["c", "B", "a", "d", "10"] {
        s.push_image("x/y", t, b"l").await;
    }
    let tags = |v: &Value| v["tags"].clone();
    let (all, link) = json_of(&s, "/v2/x/y/tags/list").await;
    assert_eq!((&all["name"], tags(&all)), (&json!("x/y"), json!(["10", "a", "B", "c", "d"])));
    assert_eq!(link, "");
    let (one, link) = json_of(&s, "/v2/x/y/tags/list?n=2").await;
    assert_eq!(tags(&one), json!(["10", "a"]));
    let next = link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap();
    let (two, link) = json_of(&s, next).await;
    assert_eq!(tags(&two), json!(["B", "c"]));
    assert!(link.contains("last=c"));
    let (rest, link) = json_of(&s, "/v2/x/y/tags/list?n=2&last=c").await;
    assert_eq!((tags(&rest), link.as_str()), (json!(["d"]), ""));
    let (none, link) = json_of(&s, "/v2/x/y/tags/list?n=0").await;
    assert_eq!((tags(&none), link.as_str()), (json!([]), ""));
    assert_eq!(s.get("/v2/x/y/tags/list?n=x").await.status(), 400);
}

#[tokio::test]
async fn the_catalogue_is_listed_in_pages() {
    let dir = tempfile::tempdir().unwrap();
    let s = on(dir.path()).await;
    for r in ["b", "a/c", "a"] {
        s.push_image(r, "v", b"l").await;
    }
    s.push_blob("only/blobs", b"l").await;
    let (all, _) = json_of(&s, "/v2/_catalog").await;
    assert_eq!(all["repositories"], json!(["a", "a/c", "b"]));
    let (one, link) = json_of(&s, "/v2/_catalog?n=1&last=a").await;
    assert_eq!(one["repositories"], json!(["a/c"]));
    assert_eq!(link, "</v2/_catalog?n=1&last=a/c>; rel=\"next\"");
}

/// end-12: "MUST return a 200 OK" with an image index, also when there are
/// none, "MUST NOT return 404"; filters "MUST include OCI-Filters-Applied";
/// a push with a subject "MUST set the OCI-Subject header".
#[tokio::test]
async fn end_12_referrers_are_listed_and_filtered() {
    let dir = tempfile::tempdir().unwrap();
    let s = on(dir.path()).await;
    // The subject may come after what refers to it.
    let subject = image(b"layer");
    let text = subject.to_string();
    let digest = Digest::of(text.as_bytes());
    let path = format!("/v2/a/referrers/{digest}");
    let (none, _) = json_of(&s, &path).await;
    assert_eq!((&none["mediaType"], &none["manifests"]), (&json!(INDEX), &json!([])));
    s.push_blob("a", b"{}").await;
    let mut signatures = Vec::new();
    for kind in ["x/signature", "x/sbom"] {
        let m = json!({
            "schemaVersion": 2, "mediaType": OCI, "artifactType": kind,
            "config": descriptor("application/vnd.oci.empty.v1+json", b"{}"), "layers": [],
            "subject": descriptor(OCI, text.as_bytes()), "annotations": { "for": kind },
        });
        let d = Digest::of(m.to_string().as_bytes());
        let r = s.push_manifest("a", &d.to_string(), &m).await;
        assert_eq!((r.status().as_u16(), header(&r, "oci-subject")), (201, digest.to_string()));
        signatures.push(d);
    }
    s.push_image("a", "v1", b"layer").await;
    let r = s.get(&path).await;
    assert_eq!(header(&r, "content-type"), INDEX);
    let v: Value = r.json().await.unwrap();
    assert_eq!(v["manifests"].as_array().unwrap().len(), 2);
    let r = s.get(&format!("{path}?artifactType=x/sbom")).await;
    assert_eq!(header(&r, "oci-filters-applied"), "artifactType");
    let v: Value = r.json().await.unwrap();
    assert_eq!(v["manifests"].as_array().unwrap().len(), 1);
    assert_eq!(v["manifests"][0]["artifactType"], "x/sbom");
    assert_eq!(v["manifests"][0]["annotations"]["for"], "x/sbom");
    assert_eq!(v["manifests"][0]["digest"], signatures[1].to_string());
    let gone = format!("/v2/a/manifests/{}", signatures[1]);
    assert_eq!(s.request(Method::DELETE, &gone).send().await.unwrap().status(), 202);
    assert_eq!(json_of(&s, &path).await.0["manifests"].as_array().unwrap().len(), 1);
    assert!(s.registry.verify_store().await.unwrap().damage.is_empty());
}

#[derive(Default)]
struct Notes(Mutex<Vec<Seen>>);

impl Witness for Notes {
    fn seen(&self, what: Seen) {
        self.0.lock().unwrap().push(what);
    }
}

#[tokio::test]
async fn the_witness_is_told_and_counters_count() {
    let dir = tempfile::tempdir().unwrap();
    let notes = Arc::new(Notes::default());
    let mut settings = settings(dir.path());
    settings.witness = notes.clone();
    let s = serve(settings).await;
    let (d, _) = s.push_image("a", "v1", b"layer").await;
    let blob = Digest::of(b"layer");
    s.get(&format!("/v2/a/blobs/{blob}")).await.bytes().await.unwrap();
    s.request(Method::POST, &format!("/v2/b/blobs/uploads/?mount={blob}&from=a"))
        .send()
        .await
        .unwrap();
    s.request(Method::DELETE, "/v2/a/manifests/v1").send().await.unwrap();
    let deeds: Vec<Deed> = notes.0.lock().unwrap().iter().map(|n| n.deed.clone()).collect();
    assert_eq!(
        deeds,
        [
            Deed::Pushed,
            Deed::Pushed,
            Deed::Pushed,
            Deed::Tagged("v1".parse().unwrap()),
            Deed::Pulled,
            Deed::Mounted("a".parse().unwrap()),
            Deed::Deleted,
        ]
    );
    let tagged = notes.0.lock().unwrap()[3].clone();
    assert_eq!((tagged.digest, tagged.caller.as_str()), (Some(d), "anonymous"));
    let c = s.registry.counts();
    assert!(c.requests == 6 && c.bytes_out == 5 && c.bytes_in > 7 && c.errors == 0, "{c:?}");
}

fn verdicts(report: &provision::registry::GcReport, what: &str) -> Vec<(String, Verdict)> {
    let of = report.judged.iter().filter(|j| j.what == what);
    of.map(|j| (j.name.clone(), j.verdict.clone())).collect()
}

/// A manifest that cannot be read may have named anything: its repository
/// loses nothing until it was pushed again.
#[tokio::test]
async fn a_damaged_manifest_is_not_served_and_stops_collection() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    (settings.grace, settings.wait) = (Duration::ZERO, Duration::ZERO);
    settings.untagged = Some(Duration::ZERO);
    let s = serve(settings).await;
    let (d, m) = s.push_image("a", "v1", b"layer").await;
    let at = format!("repos/a/_manifests/sha256-{}", d.hex());
    s.storage.write(&at, m.to_string().replace("layer", "lawyer").into()).await.unwrap();
    let r = s.get("/v2/a/manifests/v1").await;
    assert_eq!((r.status().as_u16(), code(r).await.as_str()), (500, "UNKNOWN"));
    for _ in 0..4 {
        s.registry.collect_garbage(false).await.unwrap();
    }
    assert_eq!(s.registry.verify_store().await.unwrap().damage.len(), 1);
    assert_eq!(s.push_manifest("a", "v1", &m).await.status(), 201);
    assert_eq!(s.registry.verify_store().await.unwrap().damage, []);
}

/// With no grace and no wait each run takes one step at each level.
#[tokio::test]
async fn garbage_goes_in_steps_and_comes_back_when_used() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    (settings.grace, settings.wait) = (Duration::ZERO, Duration::ZERO);
    let s = serve(settings).await;
    let (d, _) = s.push_image("a", "v1", b"kept").await;
    let lost = s.push_blob("a", b"lost").await;
    let dry = s.registry.collect_garbage(true).await.unwrap();
    let kept = (Digest::of(b"kept").to_string(), Verdict::Named { by: d.to_string() });
    assert!(verdicts(&dry, "link").contains(&kept), "{dry:?}");
    assert!(verdicts(&dry, "link").contains(&(lost.to_string(), Verdict::SetAside)));
    let path = format!("/v2/a/blobs/{lost}");
    // The dry run changed nothing; then the link is released, and used again.
    for _ in 0..2 {
        let real = s.registry.collect_garbage(false).await.unwrap();
        assert!(verdicts(&real, "link").contains(&(lost.to_string(), Verdict::SetAside)));
        assert_eq!(s.request(Method::HEAD, &path).send().await.unwrap().status(), 200);
    }
    // Released, link gone and blob aside, freed.
    for _ in 0..3 {
        s.registry.collect_garbage(false).await.unwrap();
    }
    assert_eq!(s.get(&path).await.status(), 404);
    assert!(s.storage.blob(&lost).await.unwrap().is_none());
    let r = s.get("/v2/a/manifests/v1").await;
    assert_eq!(r.status(), 200);
    assert!(s.registry.verify_store().await.unwrap().damage.is_empty());
    // With a grace age nothing young goes.
    let mut settings = registryd::settings(dir.path());
    settings.untagged = Some(Duration::ZERO);
    let s = serve(settings).await;
    s.push_blob("a", b"young").await;
    let report = s.registry.collect_garbage(false).await.unwrap();
    assert_eq!((report.freed, report.set_aside), (0, 0), "{report:?}");
    s.request(Method::DELETE, "/v2/a/manifests/v1").send().await.unwrap();
    s.registry.collect_garbage(false).await.unwrap();
    assert_eq!(s.get(&format!("/v2/a/manifests/{d}")).await.status(), 404, "untagged");
}

#[tokio::test]
async fn verification_names_each_thing_that_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let s = on(dir.path()).await;
    let (d, _) = s.push_image("a", "v1", b"layer").await;
    s.push_image("b", "v1", b"other").await;
    assert!(s.registry.verify_store().await.unwrap().damage.is_empty());
    s.rot(&Digest::of(b"layer"), b"rotte").await;
    s.lose(&Digest::of(b"other")).await;
    s.storage.write("repos/b/_tags/lost", Digest::of(b"?").to_string().into()).await.unwrap();
    let report = s.registry.verify_store().await.unwrap();
    let found: Vec<(&str, &str)> =
        report.damage.iter().map(|d| (d.what, d.repository.as_str())).collect();
    assert_eq!(found, [("blob", ""), ("manifest", "a"), ("manifest", "b"), ("tag", "b")]);
    assert_eq!(report.damage[1].name, d.to_string());
    // Pushing again heals.
    s.push_blob("a", b"layer").await;
    s.push_blob("b", b"other").await;
    s.request(Method::DELETE, "/v2/b/manifests/lost").send().await.unwrap();
    assert_eq!(s.registry.verify_store().await.unwrap().damage, []);
}

#[tokio::test]
async fn a_layout_goes_out_and_comes_in_again() {
    let dir = tempfile::tempdir().unwrap();
    let s = on(&dir.path().join("one")).await;
    let (_, m) = s.push_image("a", "v1", &noise(3, 2_500_000)).await;
    let index = json!({
        "schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(OCI, m.to_string().as_bytes())],
    });
    assert_eq!(s.push_manifest("a", "all", &index).await.status(), 201);
    let (out, a) = (dir.path().join("layout"), "a".parse().unwrap());
    let all = "all".parse().unwrap();
    let digest = s.registry.export_layout(&a, &all, &out).await.unwrap();
    let tar = dir.path().join("layout.tar");
    assert_eq!(s.registry.export_tar(&a, &all, &tar).await.unwrap(), digest);
    let mut names: Vec<String> = tar::Archive::new(std::fs::File::open(&tar).unwrap())
        .entries()
        .unwrap()
        .map(|e| e.unwrap().path().unwrap().display().to_string())
        .filter(|p| !p.ends_with('/'))
        .collect();
    names.sort();
    assert!(names.contains(&"oci-layout".to_owned()), "{names:?}");
    let two = on(&dir.path().join("two")).await;
    let (name, to) = ("b/c".parse().unwrap(), "v2".parse().unwrap());
    let back = two.registry.import_layout(&out, Some("all"), &name, &to).await.unwrap();
    assert_eq!(back, digest);
    assert_eq!(two.get("/v2/b/c/manifests/v2").await.text().await.unwrap(), index.to_string());
    assert_eq!(two.registry.verify_store().await.unwrap().damage, []);
    let wrong = two.registry.import_layout(&out, Some("nope"), &name, &to).await.unwrap_err();
    assert!(wrong.to_string().contains("\"all\""), "{wrong}");
}
