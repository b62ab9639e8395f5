//! OCI Distribution Specification 1.1, each MUST by its endpoint ("end-1" to
//! "end-13"), in the order of the official conformance suite: pull, push,
//! discovery (`registry_discovery`), management.

mod registryd;

use provision::registry::{Action, Algorithm, Caller, Digest, Gate, Refusal, Verb};
use registryd::*;
use reqwest::Method;
use serde_json::json;
use std::sync::Arc;

const HEAD: Method = Method::HEAD;
const POST: Method = Method::POST;
const PUT: Method = Method::PUT;
const PATCH: Method = Method::PATCH;
const DELETE: Method = Method::DELETE;

async fn fresh() -> (tempfile::TempDir, Served) {
    let dir = tempfile::tempdir().unwrap();
    let s = on(dir.path()).await;
    (dir, s)
}

#[tokio::test]
async fn end_1_the_base_endpoint_answers_200() {
    let (_dir, s) = fresh().await;
    for path in ["/v2/", "/v2"] {
        let r = s.get(path).await;
        assert_eq!(r.status(), 200);
        assert_eq!(header(&r, "docker-distribution-api-version"), "registry/2.0");
    }
}

/// "A GET request to an existing blob URL MUST provide the expected blob, with
/// a response code that MUST be 200 OK"; HEAD "MUST be 200 OK" with a
/// `Content-Length`; "If the blob is not found … MUST be 404 Not Found".
#[tokio::test]
async fn end_2_blobs_are_pulled_whole_and_in_parts() {
    let (_dir, s) = fresh().await;
    let bytes = noise(1, 3 * 1024 * 1024 + 17);
    let d = s.push_blob("a/b", &bytes).await;
    let path = format!("/v2/a/b/blobs/{d}");
    let r = s.request(HEAD, &path).send().await.unwrap();
    assert_eq!(r.status(), 200);
    assert_eq!(header(&r, "content-length"), bytes.len().to_string());
    assert_eq!(header(&r, "docker-content-digest"), d.to_string());
    let r = s.get(&path).await;
    assert_eq!(header(&r, "etag"), format!("\"{d}\""));
    assert_eq!(r.bytes().await.unwrap(), bytes);
    for (range, from, to) in [("bytes=5-9", 5, 10), ("bytes=-7", bytes.len() - 7, bytes.len())] {
        let r = s.request(Method::GET, &path).header("range", range).send().await.unwrap();
        assert_eq!(r.status(), 206);
        let want = format!("bytes {from}-{}/{}", to - 1, bytes.len());
        assert_eq!(header(&r, "content-range"), want);
        assert_eq!(r.bytes().await.unwrap(), &bytes[from..to]);
    }
    let r = s.request(Method::GET, &path).header("range", "bytes=9999999-").send().await.unwrap();
    assert_eq!(r.status(), 416);
    assert_eq!(header(&r, "content-range"), format!("bytes */{}", bytes.len()));
    let r = s.request(Method::GET, &path).header("if-none-match", format!("\"{d}\""));
    assert_eq!(r.send().await.unwrap().status(), 304);
    let absent = format!("/v2/a/b/blobs/{}", Digest::of(b"absent"));
    let r = s.get(&absent).await;
    assert_eq!(r.status(), 404);
    assert_eq!(code(r).await, "BLOB_UNKNOWN");
    // A blob of one repository is not one of another's.
    assert_eq!(s.get(&format!("/v2/other/blobs/{d}")).await.status(), 404);
}

/// "The client SHOULD … `Content-Type` of the response MUST match"; missing
/// "MUST be 404 Not Found".
#[tokio::test]
async fn end_3_manifests_are_pulled_by_tag_and_digest() {
    let (_dir, s) = fresh().await;
    let (d, m) = s.push_image("a", "v1", b"layer").await;
    for reference in ["v1".to_owned(), d.to_string()] {
        let path = format!("/v2/a/manifests/{reference}");
        let r = s.request(HEAD, &path).send().await.unwrap();
        assert_eq!((r.status().as_u16(), header(&r, "content-type").as_str()), (200, OCI));
        assert_eq!(header(&r, "content-length"), m.to_string().len().to_string());
        let r = s.get(&path).await;
        assert_eq!(header(&r, "docker-content-digest"), d.to_string());
        assert_eq!(r.text().await.unwrap(), m.to_string());
    }
    for absent in ["nope".to_owned(), Digest::of(b"no").to_string()] {
        let r = s.get(&format!("/v2/a/manifests/{absent}")).await;
        assert_eq!(r.status(), 404);
        assert_eq!(code(r).await, "MANIFEST_UNKNOWN");
    }
}

/// end-4a and end-6: "POST … MUST be 202 Accepted", "MUST contain Location";
/// then PUT "MUST be 201 Created" with the pullable location.
#[tokio::test]
async fn end_4a_a_blob_is_pushed_by_post_then_put() {
    let (_dir, s) = fresh().await;
    for algorithm in Algorithm::ALL {
        let r = s.request(POST, "/v2/a/blobs/uploads/").send().await.unwrap();
        assert_eq!(r.status(), 202);
        let d = Digest::with(algorithm, b"hello");
        let to = format!("{}?digest={d}", location(&r));
        let r = s.request(PUT, &to).body("hello").send().await.unwrap();
        assert_eq!(r.status(), 201);
        assert_eq!(s.get(&location(&r)).await.text().await.unwrap(), "hello");
    }
}

/// end-4b: "MUST be 201 Created"; a wrong digest is "DIGEST_INVALID".
#[tokio::test]
async fn end_4b_a_blob_is_pushed_by_one_post() {
    let (_dir, s) = fresh().await;
    let d = s.push_blob("a", b"one").await;
    assert_eq!(s.get(&format!("/v2/a/blobs/{d}")).await.text().await.unwrap(), "one");
    for wrong in [Digest::of(b"two").to_string(), "sha256:abc".into(), "md5:0".into()] {
        let path = format!("/v2/a/blobs/uploads/?digest={wrong}");
        let r = s.request(POST, &path).body("other").send().await.unwrap();
        assert_eq!(r.status(), 400);
        assert_eq!(code(r).await, "DIGEST_INVALID");
    }
    let left = s.storage.uploads().await.unwrap();
    assert!(left.is_empty(), "a refused upload holds no room");
}

/// end-5, end-6, end-13: chunks in order; "if a chunk is uploaded out of
/// order, the registry MUST respond with 416"; the state is "204 No Content"
/// with `Location` and `Range`.
#[tokio::test]
async fn end_5_chunks_come_in_order_or_are_refused_with_416() {
    let (_dir, s) = fresh().await;
    let r = s.request(POST, "/v2/a/blobs/uploads/").send().await.unwrap();
    let at = location(&r);
    let patch = |from: usize, body: &'static str| {
        s.request(PATCH, &at)
            .header("content-range", format!("{from}-{}", from + body.len() - 1))
            .header("content-type", "application/octet-stream")
            .body(body)
    };
    let r = patch(3, "def").send().await.unwrap();
    assert_eq!(r.status(), 416);
    let r = patch(0, "abc").send().await.unwrap();
    assert_eq!((r.status().as_u16(), header(&r, "range").as_str()), (202, "0-2"));
    assert_eq!(location(&r), at);
    for from in [0, 2, 4] {
        let r = patch(from, "xyz").send().await.unwrap();
        assert_eq!(r.status(), 416);
        assert_eq!((header(&r, "range"), location(&r)), ("0-2".into(), at.clone()));
    }
    let r = s.get(&at).await;
    assert_eq!((r.status().as_u16(), header(&r, "range").as_str()), (204, "0-2"));
    assert_eq!(location(&r), at);
    let r = patch(3, "def").header("content-length", "3").send().await.unwrap();
    assert_eq!(r.status(), 202);
    let to = format!("{at}?digest={}", Digest::of(b"abcdefghi"));
    // The last chunk may come with the PUT.
    let r = s.request(PUT, &to).header("content-range", "6-8").body("ghi").send().await.unwrap();
    assert_eq!(r.status(), 201);
    assert_eq!(s.get(&location(&r)).await.text().await.unwrap(), "abcdefghi");
    let r = s.get(&at).await;
    assert_eq!(r.status(), 404);
    assert_eq!(code(r).await, "BLOB_UPLOAD_UNKNOWN");
}

/// The streamed form that docker and skopeo use: PATCH without a range; a
/// sha512 digest over it, which is hashed again at the end.
#[tokio::test]
async fn end_5_a_streamed_chunk_needs_no_range() {
    let (_dir, s) = fresh().await;
    for algorithm in Algorithm::ALL {
        let at = location(&s.request(POST, "/v2/a/blobs/uploads/").send().await.unwrap());
        assert_eq!(s.request(PATCH, &at).body("stream").send().await.unwrap().status(), 202);
        assert_eq!(s.request(PATCH, &at).body("ed").send().await.unwrap().status(), 202);
        let to = format!("{at}?digest={}", Digest::with(algorithm, b"streamed"));
        assert_eq!(s.request(PUT, &to).send().await.unwrap().status(), 201);
    }
}

#[tokio::test]
async fn an_upload_is_cancelled_and_belongs_to_its_repository() {
    let (_dir, s) = fresh().await;
    let at = location(&s.request(POST, "/v2/a/blobs/uploads/").send().await.unwrap());
    let elsewhere = at.replace("/v2/a/", "/v2/b/");
    assert_eq!(s.get(&elsewhere).await.status(), 404);
    assert_eq!(s.request(PATCH, &elsewhere).body("x").send().await.unwrap().status(), 404);
    assert_eq!(s.request(DELETE, &at).send().await.unwrap().status(), 204);
    assert_eq!(s.request(PATCH, &at).body("x").send().await.unwrap().status(), 404);
    let r = s.request(PUT, &format!("{at}?digest={}", Digest::of(b""))).send().await.unwrap();
    assert_eq!(r.status(), 404);
}

/// end-6: PUT without a digest, and with the wrong one, is refused.
#[tokio::test]
async fn end_6_the_digest_is_asked_for_and_checked() {
    let (_dir, s) = fresh().await;
    let at = location(&s.request(POST, "/v2/a/blobs/uploads/").send().await.unwrap());
    let r = s.request(PUT, &at).body("x").send().await.unwrap();
    assert_eq!((r.status().as_u16(), code(r).await.as_str()), (400, "DIGEST_INVALID"));
    let to = format!("{at}?digest={}", Digest::of(b"y"));
    let r = s.request(PUT, &to).body("x").send().await.unwrap();
    assert_eq!((r.status().as_u16(), code(r).await.as_str()), (400, "DIGEST_INVALID"));
}

/// end-7: "MUST be 201 Created", Location "MUST be a pullable manifest URL".
#[tokio::test]
async fn end_7_manifests_are_checked() {
    let (_dir, s) = fresh().await;
    let (d, m) = s.push_image("a", "v1", b"layer").await;
    let r = s.push_manifest("a", &d.to_string(), &m).await;
    assert_eq!(s.get(&location(&r)).await.status(), 200);
    let s_ref = &s;
    let put = |what: serde_json::Value| async move {
        let r = s_ref.push_manifest("a", "bad", &what).await;
        (r.status().as_u16(), code(r).await)
    };
    let r = s.push_manifest("a", &Digest::of(b"other").to_string(), &m).await;
    assert_eq!((r.status().as_u16(), code(r).await.as_str()), (400, "DIGEST_INVALID"));
    assert_eq!(put(image(b"never sent")).await, (404, "MANIFEST_BLOB_UNKNOWN".into()));
    let mut size = m.clone();
    size["layers"][0]["size"] = json!(4);
    assert_eq!(put(size).await, (400, "MANIFEST_INVALID".into()));
    let child = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(OCI, b"absent")] });
    assert_eq!(put(child).await, (404, "MANIFEST_BLOB_UNKNOWN".into()));
    let r = s.request(PUT, "/v2/a/manifests/bad").header("content-type", INDEX);
    let r = r.body(m.to_string()).send().await.unwrap();
    assert_eq!((r.status().as_u16(), code(r).await.as_str()), (400, "MANIFEST_INVALID"));
    let r = s.request(PUT, "/v2/a/manifests/bad").header("content-type", OCI).body("{nonsense");
    let r = r.send().await.unwrap();
    assert_eq!((r.status().as_u16(), code(r).await.as_str()), (400, "MANIFEST_INVALID"));
    let r = s.request(PUT, "/v2/a/manifests/big").header("content-type", OCI);
    let r = r.body(vec![b' '; 4 * 1024 * 1024 + 1]).send().await.unwrap();
    assert_eq!(r.status(), 413);
    assert_eq!(s.get("/v2/a/manifests/bad").await.status(), 404);
    // Foreign layers may be elsewhere; a list of Docker's holds its images.
    let mut foreign = m.clone();
    foreign["layers"] = json!([{
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "digest": Digest::of(b"elsewhere"), "size": 9,
    }]);
    assert_eq!(s.push_manifest("a", "foreign", &foreign).await.status(), 201);
    let mut docker = m.clone();
    docker["mediaType"] = json!(DOCKER);
    assert_eq!(s.push_manifest("a", "docker", &docker).await.status(), 201);
    let list = json!({
        "schemaVersion": 2, "mediaType": LIST,
        "manifests": [descriptor(DOCKER, docker.to_string().as_bytes())],
    });
    assert_eq!(s.push_manifest("a", "list", &list).await.status(), 201);
    let sha512 = Digest::with(Algorithm::Sha512, m.to_string().as_bytes());
    assert_eq!(s.push_manifest("a", &sha512.to_string(), &m).await.status(), 201);
    assert_eq!(s.get(&format!("/v2/a/manifests/{sha512}")).await.status(), 200);
}

/// end-11: a mount "MUST be 201 Created"; one that cannot be done "MUST return
/// a 202" with an upload.
#[tokio::test]
async fn end_11_blobs_are_mounted_or_an_upload_is_opened() {
    let (_dir, s) = fresh().await;
    s.push_image("from/here", "v1", b"shared").await;
    let d = Digest::of(b"shared");
    let mount = |q: String| s.request(POST, &format!("/v2/to/blobs/uploads/?mount={q}")).send();
    let r = mount(format!("{}&from=from/here", Digest::of(b"absent"))).await.unwrap();
    assert_eq!(r.status(), 202);
    assert!(location(&r).contains("/blobs/uploads/"));
    let r = mount(format!("{d}&from=nobody/here")).await.unwrap();
    assert_eq!(r.status(), 202);
    let r = mount(format!("{d}&from=from/here")).await.unwrap();
    assert_eq!(r.status(), 201);
    assert_eq!(s.get(&location(&r)).await.text().await.unwrap(), "shared");
    let r = s.request(POST, &format!("/v2/third/blobs/uploads/?mount={d}")).send().await.unwrap();
    assert_eq!(r.status(), 201, "without `from`, any repository will do");
}

/// end-9: tags and manifests; "MUST be 202 Accepted", afterwards "404".
#[tokio::test]
async fn end_9_tags_and_manifests_are_deleted() {
    let (_dir, s) = fresh().await;
    let (d, _) = s.push_image("a", "v1", b"layer").await;
    s.push_image("a", "v2", b"layer").await;
    let delete = |r: String| s.request(DELETE, &format!("/v2/a/manifests/{r}")).send();
    assert_eq!(delete("v1".into()).await.unwrap().status(), 202);
    assert_eq!(s.get("/v2/a/manifests/v1").await.status(), 404);
    assert_eq!(s.get(&format!("/v2/a/manifests/{d}")).await.status(), 200);
    assert_eq!(delete("v1".into()).await.unwrap().status(), 404);
    let index = json!({
        "schemaVersion": 2, "mediaType": INDEX,
        "manifests": [descriptor(OCI, image(b"layer").to_string().as_bytes())],
    });
    assert_eq!(s.push_manifest("a", "all", &index).await.status(), 201);
    let r = delete(d.to_string()).await.unwrap();
    assert_eq!((r.status().as_u16(), code(r).await.as_str()), (409, "DENIED"));
    let all = Digest::of(index.to_string().as_bytes());
    assert_eq!(delete(all.to_string()).await.unwrap().status(), 202);
    assert_eq!(s.get("/v2/a/manifests/all").await.status(), 404);
    assert_eq!(delete(d.to_string()).await.unwrap().status(), 202);
    assert_eq!(s.get("/v2/a/manifests/v2").await.status(), 404);
    assert_eq!(delete(d.to_string()).await.unwrap().status(), 404);
}

/// end-10: "MUST be 202 Accepted", absent "404"; refused while named.
#[tokio::test]
async fn end_10_blobs_are_deleted_unless_a_manifest_names_them() {
    let (_dir, s) = fresh().await;
    s.push_image("a", "v1", b"layer").await;
    s.push_blob("b", b"layer").await;
    let path = |repo: &str| format!("/v2/{repo}/blobs/{}", Digest::of(b"layer"));
    let r = s.request(DELETE, &path("a")).send().await.unwrap();
    assert_eq!((r.status().as_u16(), code(r).await.as_str()), (409, "DENIED"));
    assert_eq!(s.request(DELETE, &path("b")).send().await.unwrap().status(), 202);
    assert_eq!(s.get(&path("b")).await.status(), 404);
    assert_eq!(s.request(DELETE, &path("b")).send().await.unwrap().status(), 404);
    assert_eq!(s.get(&path("a")).await.status(), 200, "the other repository still has it");
}

/// "NAME_INVALID", "UNSUPPORTED": errors have a body.
#[tokio::test]
async fn errors_have_the_form_of_the_specification() {
    let (_dir, s) = fresh().await;
    for (method, path, status, want) in [
        (Method::GET, "/v2/UPPER/tags/list", 400, "NAME_INVALID"),
        (Method::GET, "/v2/none/tags/list", 404, "NAME_UNKNOWN"),
        (Method::GET, "/v2/a/blobs/sha256:zz", 400, "DIGEST_INVALID"),
        (POST, "/v2/a/manifests/x", 405, "UNSUPPORTED"),
        (Method::GET, "/v2/a/what", 404, "UNSUPPORTED"),
        (PATCH, "/v2/a/blobs/uploads/zz", 404, "BLOB_UPLOAD_UNKNOWN"),
    ] {
        let r = s.request(method, path).send().await.unwrap();
        assert_eq!((r.status().as_u16(), code(r).await.as_str()), (status, want), "{path}");
    }
}

struct Door;

#[async_trait::async_trait]
impl Gate for Door {
    async fn admit(&self, r: &http::request::Parts, a: &Action) -> Result<Caller, Refusal> {
        let name = r.headers.get("x-name").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let refuse = |status, challenge: Option<&str>| {
            Err(Refusal { status, message: "no".into(), challenge: challenge.map(str::to_owned) })
        };
        match (name, &a.verb) {
            ("", _) => refuse(401, Some("Bearer realm=\"x\"")),
            ("reader", Verb::Base | Verb::Pull) | ("writer", _) => {
                Ok(Caller { name: name.to_owned() })
            }
            _ => refuse(403, None),
        }
    }
}

#[tokio::test]
async fn the_gate_is_asked_before_anything_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.gate = Arc::new(Door);
    let s = serve(settings).await;
    let d = Digest::of(b"x");
    for (method, path) in [
        (Method::GET, "/v2/".to_owned()),
        (Method::GET, "/v2/_catalog".into()),
        (Method::GET, "/v2/a/tags/list".into()),
        (Method::GET, "/v2/UPPER/tags/list".into()),
        (PUT, "/v2/a/manifests/x".into()),
        (DELETE, format!("/v2/a/blobs/{d}")),
        (POST, format!("/v2/a/blobs/uploads/?digest={d}")),
    ] {
        let r = s.request(method.clone(), &path).body("x").send().await.unwrap();
        assert_eq!(r.status(), 401, "{path}");
        assert_eq!(header(&r, "www-authenticate"), "Bearer realm=\"x\"");
        assert_eq!(code(r).await, "UNAUTHORIZED");
        if method != Method::GET || path == "/v2/_catalog" {
            let r = s.request(method, &path).header("x-name", "reader").body("x").send();
            let r = r.await.unwrap();
            assert_eq!((r.status().as_u16(), code(r).await.as_str()), (403, "DENIED"), "{path}");
        }
    }
    let path = format!("/v2/a/blobs/uploads/?digest={d}");
    let r = s.request(POST, &path).header("x-name", "writer").body("x").send().await.unwrap();
    assert_eq!(r.status(), 201);
}
