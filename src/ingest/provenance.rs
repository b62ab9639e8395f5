//! Says of an image where it came from, and signs it: an in-toto Statement v1
//! with a SLSA Provenance v1 predicate, in a DSSE envelope (version 1.0.2,
//! `PAE`), to be kept beside the image as an OCI referrer. Pure: no registry,
//! no files, so that an attestation can be checked anywhere with the public
//! key alone.

use super::check::{self, Checked};
use super::run::{Origin, Run};
use crate::model::{Digest, Time};
use crate::tls::signing::{SigningKey, VerifyingKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Type of the referrer, and of the envelope's payload.
pub const ARTIFACT_TYPE: &str = "application/vnd.in-toto+json";
/// Media type of the referrer's layer.
pub const ENVELOPE_TYPE: &str = "application/vnd.dsse.envelope.v1+json";
/// `_type` of the statement.
pub(super) const STATEMENT: &str = "https://in-toto.io/Statement/v1";
/// Its predicate.
const PREDICATE: &str = "https://slsa.dev/provenance/v1";
/// Largest envelope that is read, in bytes.
const LARGEST: usize = 1 << 20;

/// What an attestation says, once it was found true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Repository of the image.
    pub name: String,
    /// Of the image.
    pub digest: Digest,
    /// How it was built.
    pub build_type: String,
    /// From what, in words.
    pub source: String,
    /// Git commit, if there was one.
    pub commit: Option<String>,
    /// Differed from the commit.
    pub dirty: bool,
    /// Images it started from, with digests.
    pub bases: Vec<(String, String)>,
    /// Who vouches.
    pub builder: String,
    /// Run.
    pub invocation: String,
    /// Who asked.
    pub asked_by: String,
    /// Start of the build.
    pub started: Option<Time>,
    /// Its end.
    pub finished: Option<Time>,
    /// Key that signed.
    pub key_id: String,
}

/// What was signed about an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Said {
    /// How it was checked.
    Checked(Checked),
    /// Where it came from.
    Provenance(Box<Summary>),
}

/// Why an attestation is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// No envelope of ours.
    #[error("this is no attestation: {0}")]
    Form(String),
    /// Signed by somebody else.
    #[error("signed with key {found}, not with the given key {wanted}")]
    OtherKey {
        /// In the envelope.
        found: String,
        /// Given.
        wanted: String,
    },
    /// The content is not what was signed.
    #[error("the signature does not fit the content: it was changed after it was signed")]
    Tampered,
    /// About another image.
    #[error("it is about image {found}, not about {wanted}")]
    OtherImage {
        /// In the statement.
        found: String,
        /// Given.
        wanted: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload_type: String,
    payload: String,
    signatures: Vec<Signature>,
}

#[derive(Serialize, Deserialize)]
struct Signature {
    #[serde(default)]
    keyid: String,
    sig: String,
}

/// The attestation of `run`, whose image is `image`, signed by `builder_id`'s
/// key.
pub fn attest(run: &Run, image: &Digest, builder_id: &str, key: &SigningKey) -> Vec<u8> {
    sign(statement(run, image, builder_id).to_string().as_bytes(), key)
}

/// Puts `payload` into a signed envelope.
pub(super) fn sign(payload: &[u8], key: &SigningKey) -> Vec<u8> {
    let envelope = Envelope {
        payload_type: ARTIFACT_TYPE.to_owned(),
        payload: STANDARD.encode(payload),
        signatures: vec![Signature {
            keyid: key.verifying_key().id(),
            sig: STANDARD.encode(key.sign(&pae(ARTIFACT_TYPE, payload))),
        }],
    };
    serde_json::to_vec(&envelope).unwrap_or_default()
}

/// DSSE, "Pre-Authentication Encoding".
fn pae(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    out.extend_from_slice(payload);
    out
}

/// `sha256:abc` as in-toto writes digests.
pub(super) fn digest_set(digest: &str) -> Value {
    match digest.split_once(':') {
        Some((algorithm, hex)) => json!({ algorithm: hex }),
        None => json!({ "gitCommit": digest }),
    }
}

fn statement(run: &Run, image: &Digest, builder_id: &str) -> Value {
    let kind = match run.source {
        Origin::Debian { .. } => "debian",
        Origin::ImageFile { .. } | Origin::Registry { .. } => "import",
        // An image that came as a file has no Dockerfile.
        Origin::Upload { .. } if run.dockerfile.is_empty() => "import",
        _ => "dockerfile",
    };
    let mut resolved = Vec::new();
    if let Some(commit) = &run.commit {
        let uri = match &run.source {
            Origin::Git { url, .. } => format!("git+{url}"),
            Origin::Upload { label } => format!("upload:{label}"),
            other => format!("git+file://{other}"),
        };
        resolved.push(json!({ "name": "source", "uri": uri, "digest": digest_set(commit),
            // A folder that was sent is what its sender says it is.
            "annotations": { "dirty": run.dirty,
                "saidBySender": matches!(run.source, Origin::Upload { .. }) } }));
    }
    for (name, digest) in [("context", &run.context_digest), ("dockerfile", &run.dockerfile_digest)]
    {
        if let Some(d) = digest {
            resolved.push(json!({ "name": name, "digest": digest_set(d) }));
        }
    }
    for base in &run.bases {
        resolved
            .push(json!({ "name": "base", "uri": base.name, "digest": digest_set(&base.digest) }));
    }
    let version = run.builder.as_ref().map(|b| json!({ b.name.as_str(): b.version }));
    json!({
        "_type": STATEMENT,
        "subject": [{ "name": run.repository, "digest": digest_set(&image.to_string()) }],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": format!("urn:provision:build:{kind}:v1"),
                "externalParameters": {
                    "source": run.source, "dockerfile": run.dockerfile, "target": run.target,
                    "arguments": run.arguments, "network": run.network, "tag": run.tag,
                },
                "internalParameters": { "sourceText": run.source.to_string() },
                "resolvedDependencies": resolved,
            },
            "runDetails": {
                "builder": { "id": builder_id, "version": version },
                // Fields beside the specification's carry the maker's name.
                "metadata": {
                    "invocationId": run.id, "startedOn": run.started, "finishedOn": run.ended,
                    "provision_askedBy": run.asked_by,
                },
            },
        },
    })
}

/// The same as [`read`], of provenance alone.
pub fn verify(envelope: &[u8], key: &VerifyingKey, image: &Digest) -> Result<Summary, VerifyError> {
    match read(envelope, key, image)? {
        Said::Provenance(summary) => Ok(*summary),
        Said::Checked(_) => Err(VerifyError::Form("it is of a check, no SLSA Provenance".into())),
    }
}

/// Checks `envelope` against a public key and the digest of the image that it
/// should be about. Nothing in it is believed before the signature fits.
pub fn read(envelope: &[u8], key: &VerifyingKey, image: &Digest) -> Result<Said, VerifyError> {
    let form = |why: &str| VerifyError::Form(why.to_owned());
    if envelope.len() > LARGEST {
        return Err(form("it is larger than 1 MiB"));
    }
    let envelope: Envelope =
        serde_json::from_slice(envelope).map_err(|e| form(&format!("no DSSE envelope: {e}")))?;
    if envelope.payload_type != ARTIFACT_TYPE {
        return Err(form("its payload is no in-toto statement"));
    }
    let payload = STANDARD.decode(&envelope.payload).map_err(|_| form("payload is no base64"))?;
    let signed = pae(&envelope.payload_type, &payload);
    let fits = |s: &Signature| STANDARD.decode(&s.sig).is_ok_and(|sig| key.verify(&signed, &sig));
    let wanted = key.id();
    if !envelope.signatures.iter().any(fits) {
        // The key's name is a hint only; it decides which message is shown.
        let found = envelope.signatures.first().map(|s| s.keyid.clone()).unwrap_or_default();
        return Err(if envelope.signatures.iter().any(|s| s.keyid == wanted) {
            VerifyError::Tampered
        } else {
            VerifyError::OtherKey { found: found.chars().take(64).collect(), wanted }
        });
    }
    let statement: Value =
        serde_json::from_slice(&payload).map_err(|e| form(&format!("statement: {e}")))?;
    let kind = statement["predicateType"].as_str().unwrap_or_default();
    if statement["_type"] != STATEMENT || ![PREDICATE, check::PREDICATE].contains(&kind) {
        return Err(form("neither SLSA Provenance v1 nor test-result v0.1 of in-toto"));
    }
    let subjects = statement["subject"].as_array().map(Vec::as_slice).unwrap_or_default();
    let hex = image.to_hex();
    let Some(subject) = subjects.iter().find(|s| s["digest"]["sha256"] == hex.as_str()) else {
        let found = subjects.first().and_then(|s| s["digest"]["sha256"].as_str()).unwrap_or("none");
        return Err(VerifyError::OtherImage {
            found: format!("sha256:{found}"),
            wanted: image.to_string(),
        });
    };
    let predicate = &statement["predicate"];
    if kind == check::PREDICATE {
        return check::read(predicate, image).map(Said::Checked);
    }
    Ok(Said::Provenance(Box::new(summary(predicate, subject, image, wanted))))
}

fn summary(predicate: &Value, subject: &Value, image: &Digest, key_id: String) -> Summary {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let definition = &predicate["buildDefinition"];
    let metadata = &predicate["runDetails"]["metadata"];
    let time = |v: &Value| v.as_str().and_then(|t| t.parse().ok());
    let used = definition["resolvedDependencies"].as_array().map(Vec::as_slice).unwrap_or_default();
    let source = used.iter().find(|d| d["name"] == "source");
    let bases = used.iter().filter(|d| d["name"] == "base");
    Summary {
        name: text(&subject["name"]),
        digest: *image,
        build_type: text(&definition["buildType"]),
        source: text(&definition["internalParameters"]["sourceText"]),
        commit: source.and_then(|s| s["digest"]["gitCommit"].as_str()).map(str::to_owned),
        dirty: source.is_some_and(|s| s["annotations"]["dirty"] == true),
        bases: bases
            .map(|b| (text(&b["uri"]), format!("sha256:{}", text(&b["digest"]["sha256"]))))
            .collect(),
        builder: text(&predicate["runDetails"]["builder"]["id"]),
        invocation: text(&metadata["invocationId"]),
        asked_by: text(&metadata["provision_askedBy"]),
        started: time(&metadata["startedOn"]),
        finished: time(&metadata["finishedOn"]),
        key_id,
    }
}

#[cfg(test)]
#[path = "provenance_tests.rs"]
mod tests;
