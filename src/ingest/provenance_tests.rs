use super::*;
use crate::ingest::run::{BuilderIdentity, RunId, RunState, UsedBase};
use proptest::prelude::*;

fn key() -> SigningKey {
    let dir = tempfile::tempdir().unwrap();
    SigningKey::load_or_make(&dir.path().join("k")).unwrap()
}

fn run() -> Run {
    let time: Time = "2026-11-21T08:00:00Z".parse().unwrap();
    Run {
        id: RunId::generate(),
        repository: "staging/web".into(),
        name: "web".into(),
        tag: "1".into(),
        source: Origin::Git { url: "https://git.lab/web".into(), reference: None, folder: None },
        asked_by: "ada".into(),
        dockerfile: "Dockerfile".into(),
        target: None,
        arguments: Default::default(),
        network: false,
        commit: Some("c0ffee".repeat(6) + "c0ff"),
        committed: None,
        dirty: true,
        dockerfile_digest: Some(Digest::of(b"d").to_string()),
        context_digest: Some(Digest::of(b"c").to_string()),
        bases: vec![UsedBase { name: "debian:12".into(), digest: Digest::of(b"b").to_string() }],
        builder: Some(BuilderIdentity { name: "buildah".into(), version: "1.28".into() }),
        asked: time,
        started: Some(time),
        ended: Some(time),
        state: RunState::Done,
        reason: None,
        image_digest: None,
        attestation_digest: None,
        log: "/x".into(),
    }
}

#[test]
fn an_attestation_says_what_went_in_and_who_asked() {
    let (key, run, image) = (key(), run(), Digest::of(b"image"));
    let made = attest(&run, &image, "urn:x", &key);
    let said = verify(&made, &key.verifying_key(), &image).unwrap();
    assert_eq!(said.name, "staging/web");
    assert_eq!((said.commit.as_deref(), said.dirty), (run.commit.as_deref(), true));
    assert_eq!(said.bases, [("debian:12".to_owned(), Digest::of(b"b").to_string())]);
    assert_eq!((said.asked_by.as_str(), said.builder.as_str()), ("ada", "urn:x"));
    assert_eq!(said.started, run.started);
    assert_eq!(said.invocation, run.id.as_str());
    assert_eq!(said.source, "https://git.lab/web");
}

#[test]
fn a_changed_payload_another_key_and_another_image_are_told_apart() {
    let (key, image) = (key(), Digest::of(b"image"));
    let made = attest(&run(), &image, "urn:x", &key);
    let public = key.verifying_key();
    let mut envelope: Value = serde_json::from_slice(&made).unwrap();
    let payload = STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap();
    let changed = String::from_utf8(payload).unwrap().replace("ada", "eve");
    envelope["payload"] = STANDARD.encode(changed).into();
    let tampered = verify(&serde_json::to_vec(&envelope).unwrap(), &public, &image);
    assert_eq!(tampered, Err(VerifyError::Tampered));

    let other = self::key().verifying_key();
    let said = verify(&made, &other, &image).unwrap_err();
    assert_eq!(said, VerifyError::OtherKey { found: public.id(), wanted: other.id() });

    let said = verify(&made, &public, &Digest::of(b"other")).unwrap_err();
    let texts = [VerifyError::Tampered.to_string(), said.to_string()];
    assert!(matches!(said, VerifyError::OtherImage { .. }) && texts[0] != texts[1], "{said}");
}

/// The example of the DSSE protocol page.
#[test]
fn the_encoding_that_is_signed_is_that_of_dsse() {
    assert_eq!(
        pae("http://example.com/HelloWorld", b"hello world"),
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    );
}

#[test]
fn a_signed_statement_of_another_kind_is_no_provenance() {
    let key = key();
    let made = sign(br#"{"_type":"https://in-toto.io/Statement/v1","predicateType":"x"}"#, &key);
    let said = verify(&made, &key.verifying_key(), &Digest::of(b""));
    assert!(matches!(said, Err(VerifyError::Form(_))));
}

proptest! {
    #[test]
    fn no_changed_byte_is_believed(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let (key, image) = (key(), Digest::of(b"image"));
        let whole = attest(&run(), &image, "urn:x", &key);
        let mut made = whole.clone();
        let i = at.index(made.len());
        made[i] ^= 1 << bit;
        // The key's name is not signed; everything else must fail.
        if let Ok(s) = verify(&made, &key.verifying_key(), &image) {
            prop_assert_eq!(s, verify(&whole, &key.verifying_key(), &image).unwrap());
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(verify(&bytes, &key().verifying_key(), &Digest::of(b"")).is_err());
    }
}
