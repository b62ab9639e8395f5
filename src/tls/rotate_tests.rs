use super::*;
use crate::tls::write_private;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// A pair that is good for so many days, from a day ago.
fn pair(days: u64) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut p = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
    let day = Duration::from_secs(86_400);
    p.not_before = (SystemTime::now() - day).into();
    p.not_after = (SystemTime::now() - day + day * u32::try_from(days).unwrap()).into();
    (p.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let f = Self(tempfile::tempdir().unwrap());
        f.put(&pair(1000));
        f
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, (cert, key): &(String, String)) {
        write_private(&self.at("c"), cert.as_bytes()).unwrap();
        write_private(&self.at("k"), key.as_bytes()).unwrap();
    }

    fn watched(&self) -> Rotation {
        Rotation::new(Held::open(&self.at("c"), &self.at("k")).unwrap(), None)
    }
}

fn serial(r: &Rotation) -> String {
    r.held().facts().serial
}

fn days(n: i64) -> Time {
    Time::now() + SignedDuration::from_hours(24 * n)
}

#[test]
fn files_are_read_once_they_have_come_to_rest() {
    let f = Files::new();
    let held = Held::open(&f.at("c"), &f.at("k")).unwrap();
    let look = |n: usize| {
        std::fs::write(f.at("k"), vec![7; n]).unwrap();
        held.look()
    };
    let (one, two, three) = (look(1), look(2), look(3));
    assert_eq!(decide(&one, &one, &one), Decision::Keep);
    assert_eq!(decide(&one, &one, &two), Decision::Settle);
    assert_eq!(decide(&one, &two, &three), Decision::Settle);
    assert_eq!(decide(&one, &three, &three), Decision::Read);
    assert_eq!(decide(&three, &three, &three), Decision::Keep);
    // Taken away and put back as it was.
    assert_eq!(decide(&one, &two, &one), Decision::Keep);
}

#[test]
fn another_pair_is_used_at_the_second_look_that_finds_it_and_at_once_when_told() {
    let f = Files::new();
    let mut r = f.watched();
    let first = serial(&r);
    assert!(r.look(days(0), false).is_empty());
    f.put(&pair(900));
    assert!(r.look(days(0), false).is_empty());
    assert_eq!(serial(&r), first, "it was read while it may have been half there");
    let news = r.look(days(0), false);
    let [News::Changed { old, new }] = news.as_slice() else { panic!("{news:?}") };
    assert_eq!((&old.serial, new.serial.clone()), (&first, serial(&r)));
    assert!(r.look(days(0), false).is_empty(), "told twice");

    f.put(&pair(800));
    assert!(matches!(r.look(days(0), true).as_slice(), [News::Changed { .. }]));
    assert!(r.look(days(0), true).is_empty(), "the same again is no news");
}

#[test]
fn a_broken_pair_is_told_once_and_changes_nothing() {
    let f = Files::new();
    let mut r = f.watched();
    let first = serial(&r);
    let (_, other) = pair(900);
    let over = {
        let mut p = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
        p.not_before = (SystemTime::now() - Duration::from_secs(9000)).into();
        p.not_after = (SystemTime::now() - Duration::from_secs(60)).into();
        let key = rcgen::KeyPair::generate().unwrap();
        (p.self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    let cert = std::fs::read_to_string(f.at("c")).unwrap();
    for (pair, word) in [
        ((cert.clone(), other), "not the key of the certificate in"),
        ((cert.clone(), "junk".into()), "k: "),
        ((String::new(), over.1.clone()), "no certificate"),
        (
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
                over.1.clone(),
            ),
            "cannot be read",
        ),
        ((over.0.clone(), over.1), "has ended"),
        ((cert, "x".repeat(2 << 20)), "at most 1 MiB"),
    ] {
        f.put(&pair);
        assert!(r.look(days(0), false).is_empty());
        let news = r.look(days(0), false);
        let [News::Refused { why, still }] = news.as_slice() else { panic!("{word}: {news:?}") };
        assert!(why.contains(word), "{word}: {why}");
        assert_eq!((&still.serial, serial(&r)), (&first, first.clone()));
        assert!(r.look(days(0), false).is_empty(), "{word}: told twice");
    }
    std::fs::remove_file(f.at("c")).unwrap();
    r.look(days(0), false);
    assert!(matches!(r.look(days(0), false).as_slice(), [News::Refused { .. }]));
    assert_eq!(serial(&r), first);
}

#[test]
fn an_end_is_warned_of_three_times_and_a_new_certificate_ends_the_warnings() {
    let f = Files::new();
    let mut r = f.watched();
    let mut told = Vec::new();
    for day in 0..1002 {
        let news = r.look(days(day), false);
        told.extend(news.iter().map(|n| match n {
            News::Ends { urgency, .. } => (day, *urgency),
            n => panic!("{n:?}"),
        }));
    }
    assert_eq!(told, [(969, 1), (992, 2), (999, 3)]);
    f.put(&pair(2000));
    let news = r.look(days(1002), true);
    assert!(matches!(news.as_slice(), [News::Changed { .. }]), "{news:?}");
    // A short life is not warned of from its first day.
    let short = Facts { serial: String::new(), from: days(0), until: days(6) };
    let at = |d: f64| urgency(&short, days(0) + SignedDuration::from_secs_f64(d * 86_400.0));
    assert_eq!((at(0.1), at(4.6), at(5.6), at(6.1)), (0, 1, 2, 3));
}

#[test]
fn our_own_is_made_anew_in_its_last_third_and_a_failure_is_told_and_tried_again() {
    use std::sync::atomic::{AtomicU32, Ordering};
    let f = Files::new();
    let held = Held::open(&f.at("c"), &f.at("k")).unwrap();
    let (tries, dir) = (Arc::new(AtomicU32::new(0)), f.0.path().to_owned());
    let counted = tries.clone();
    let renew = move || {
        if counted.fetch_add(1, Ordering::SeqCst) == 0 {
            return Err(TlsError::Certificate("the disk is full".into()));
        }
        let (cert, key) = pair(5000);
        write_private(&dir.join("c"), cert.as_bytes())?;
        write_private(&dir.join("k"), key.as_bytes())
    };
    let mut r = Rotation::new(held, Some(Box::new(renew)));
    let first = serial(&r);
    assert!(r.look(days(600), false).is_empty());
    assert_eq!(tries.load(Ordering::SeqCst), 0);
    let news = r.look(days(700), false);
    assert!(matches!(news.as_slice(), [News::Refused { why, .. }] if why.contains("disk is full")));
    assert!(r.look(days(700), false).is_empty(), "tried again at once");
    let news = r.look(days(701), false);
    assert!(matches!(news.as_slice(), [News::Changed { .. }]), "{news:?}");
    assert_ne!(serial(&r), first);
    assert!(r.look(days(702), false).is_empty());
    assert_eq!(tries.load(Ordering::SeqCst), 2);
}
