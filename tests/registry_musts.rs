//! What the OCI Distribution Specification 1.1 says a registry MUST do, beyond
//! the workflows of `registry_spec` and `registry_discovery`; each by the words
//! of its sentence.

mod registryd;

use provision::registry::Digest;
use registryd::*;
use reqwest::Method;
use serde_json::{Value, json};

fn header(r: &reqwest::Response, name: &str) -> String {
    let v = r.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
    v.unwrap_or_default()
}

/// "`<name>` MUST match the following regular expression", "`<reference>` as a
/// tag MUST be at most 128 characters in length and MUST match the following
/// regular expression".
#[tokio::test]
async fn names_and_tags_match_the_grammar_or_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let s = on(dir.path()).await;
    let (_, m) = s.push_image("a", "v1", b"layer").await;
    let long = "x".repeat(129);
    for (name, tag, fine) in [
        ("a/b-c.d__e", "V_1.2-x", true),
        ("a", &long[..128], true),
        ("A", "v1", false),
        ("a//b", "v1", false),
        ("-a", "v1", false),
        ("a", ".v1", false),
        ("a", "-v1", false),
        ("a", long.as_str(), false),
    ] {
        if fine && name != "a" {
            s.push_image(name, "first", b"layer").await;
        }
        let status = s.push_manifest(name, tag, &m).await.status().as_u16();
        if fine {
            assert_eq!(status, 201, "{name}:{tag}");
        } else {
            assert!(status == 400 || status == 404, "{name}:{tag} {status}");
        }
    }
}

/// "The registry MUST store the manifest in the exact byte representation
/// provided by the client."
#[tokio::test]
async fn a_manifest_comes_back_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let s = on(dir.path()).await;
    let (_, m) = s.push_image("a", "v1", b"layer").await;
    let odd = format!("\n  {} \t\n", serde_json::to_string_pretty(&m).unwrap());
    let r = s.request(Method::PUT, "/v2/a/manifests/odd").header("content-type", OCI);
    let r = r.body(odd.clone()).send().await.unwrap();
    let digest = Digest::of(odd.as_bytes()).to_string();
    assert_eq!((r.status().as_u16(), header(&r, "docker-content-digest")), (201, digest));
    assert_eq!(s.get("/v2/a/manifests/odd").await.text().await.unwrap(), odd);
}

/// "A HEAD request to an existing blob or manifest URL MUST return 200 OK"; "if
/// the blob or manifest is not found in the registry, the response code MUST be
/// 404 Not Found".
#[tokio::test]
async fn heads_answer_as_gets_do_without_a_body() {
    let dir = tempfile::tempdir().unwrap();
    let s = on(dir.path()).await;
    let (d, m) = s.push_image("a", "v1", b"layer").await;
    let layer = Digest::of(b"layer");
    let size = m.to_string().len().to_string();
    for (path, status, length) in [
        ("/v2/a/manifests/v1".to_owned(), 200, size.as_str()),
        (format!("/v2/a/manifests/{d}"), 200, size.as_str()),
        (format!("/v2/a/blobs/{layer}"), 200, "5"),
        ("/v2/a/manifests/none".to_owned(), 404, ""),
        (format!("/v2/a/blobs/{}", Digest::of(b"none")), 404, ""),
        (format!("/v2/b/blobs/{layer}"), 404, ""),
    ] {
        let r = s.request(Method::HEAD, &path).send().await.unwrap();
        assert_eq!(r.status(), status, "{path}");
        if status == 200 {
            assert_eq!(header(&r, "content-length"), length, "{path}");
            assert!(header(&r, "docker-content-digest").starts_with("sha256:"));
        }
        assert!(r.bytes().await.unwrap().is_empty());
    }
}

/// "Each successful chunk upload MUST have a 202 Accepted response code, and
/// MUST have the following headers: Location, Range"; `<range>` "MUST match the
/// following regular expression: ^[0-9]+-[0-9]+$".
#[tokio::test]
async fn chunks_and_states_have_location_and_range() {
    let dir = tempfile::tempdir().unwrap();
    let s = on(dir.path()).await;
    let r = s.request(Method::POST, "/v2/a/blobs/uploads/").send().await.unwrap();
    let at = header(&r, "location");
    let r = s.request(Method::PATCH, &at).header("content-range", "0-4");
    let r = r.header("content-type", "application/octet-stream").body("hello").send().await;
    let r = r.unwrap();
    assert_eq!((r.status().as_u16(), header(&r, "range")), (202, "0-4".into()));
    let at = header(&r, "location");
    let r = s.get(&at).await;
    assert_eq!((r.status().as_u16(), header(&r, "range")), (204, "0-4".into()));
    assert!(!header(&r, "location").is_empty());
    let done = s.request(Method::PUT, &format!("{at}?digest={}", Digest::of(b"hello")));
    let r = done.send().await.unwrap();
    assert_eq!(r.status(), 201);
    assert_eq!(s.get(&header(&r, "location")).await.text().await.unwrap(), "hello");
    // The session is over.
    assert_eq!(s.get(&at).await.status(), 404);
}

/// "The descriptors MUST include an artifactType field that is set to the value
/// of the artifactType in the image manifest or index, if present. If the
/// artifactType is empty or missing in the image manifest, the value of
/// artifactType MUST be set to the config descriptor mediaType value"; "the
/// descriptors MUST include annotations"; "if the request is invalid, such as a
/// `<digest>` with an invalid syntax, a 400 Bad Request MUST be returned".
#[tokio::test]
async fn referrers_say_what_they_are_and_an_invalid_digest_is_400() {
    let dir = tempfile::tempdir().unwrap();
    let s = on(dir.path()).await;
    let (subject, m) = s.push_image("a", "v1", b"layer").await;
    let mut by_config = m.clone();
    let text = m.to_string();
    by_config["subject"] = descriptor(OCI, text.as_bytes());
    by_config["annotations"] = json!({ "k": "v" });
    let kind = by_config["config"]["mediaType"].clone();
    assert_eq!(s.push_manifest("a", "r", &by_config).await.status(), 201);
    // An index refers too, and has no config.
    let index = json!({
        "schemaVersion": 2, "mediaType": INDEX, "artifactType": "x/list", "manifests": [],
        "subject": descriptor(OCI, text.as_bytes()),
    });
    assert_eq!(s.push_manifest("a", "i", &index).await.status(), 201);
    let r = s.get(&format!("/v2/a/referrers/{subject}")).await;
    let all: Value = r.json().await.unwrap();
    let all = all["manifests"].as_array().unwrap();
    let of = |kind: &Value| all.iter().find(|d| d["mediaType"] == *kind).unwrap();
    let (one, list) = (of(&json!(OCI)), of(&json!(INDEX)));
    assert_eq!((&one["artifactType"], &one["annotations"]), (&kind, &json!({ "k": "v" })));
    assert_eq!(list["artifactType"], "x/list");
    assert_eq!(s.get("/v2/a/referrers/sha256:nonsense").await.status(), 400);
}

/// "A registry MUST accept an otherwise valid manifest with a subject field
/// that references a manifest that does not exist"; tags: "when n is zero, this
/// endpoint MUST return an empty list, and MUST NOT include a Link header".
#[tokio::test]
async fn what_refers_may_come_first_and_an_empty_page_has_no_next() {
    let dir = tempfile::tempdir().unwrap();
    let s = on(dir.path()).await;
    let (_, m) = s.push_image("a", "v1", b"layer").await;
    let mut early = m.clone();
    early["subject"] = descriptor(OCI, b"not here yet");
    let r = s.push_manifest("a", "early", &early).await;
    let subject = Digest::of(b"not here yet").to_string();
    assert_eq!((r.status().as_u16(), header(&r, "oci-subject")), (201, subject));
    let r = s.get("/v2/a/tags/list?n=0").await;
    assert!(!r.headers().contains_key("link"));
    assert_eq!(r.json::<Value>().await.unwrap()["tags"], json!([]));
}

/// "If the registry responds with a JSON body, it MUST have the following
/// format"; "the code field MUST be a unique identifier, containing only
/// uppercase alphabetic characters and underscores".
#[tokio::test]
async fn every_error_has_the_one_form() {
    let dir = tempfile::tempdir().unwrap();
    let s = on(dir.path()).await;
    let d = Digest::of(b"none");
    for (method, path, code) in [
        (Method::GET, "/v2/none/tags/list".to_owned(), "NAME_UNKNOWN"),
        (Method::GET, "/v2/none/manifests/v1".to_owned(), "MANIFEST_UNKNOWN"),
        (Method::GET, format!("/v2/none/blobs/{d}"), "BLOB_UNKNOWN"),
        (Method::DELETE, format!("/v2/none/blobs/{d}"), "BLOB_UNKNOWN"),
        (Method::PATCH, "/v2/none/blobs/uploads/nothing".to_owned(), "BLOB_UPLOAD_UNKNOWN"),
        (Method::POST, "/v2/NONE/blobs/uploads/".to_owned(), "NAME_INVALID"),
        (Method::PUT, "/v2/none/tags/list".to_owned(), "UNSUPPORTED"),
    ] {
        let r = s.request(method.clone(), &path).send().await.unwrap();
        assert!(r.status().is_client_error(), "{method} {path}");
        let v: Value = r.json().await.unwrap();
        let one = &v["errors"][0];
        assert_eq!(one["code"], code, "{method} {path}: {v}");
        assert!(!one["message"].as_str().unwrap().is_empty());
    }
}
