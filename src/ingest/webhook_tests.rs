//! Webhooks: bodies as the forges send them, and what is not heard.

use super::*;
use proptest::prelude::*;

const GITHUB: &[u8] = include_bytes!("../../tests/fixtures/webhooks/github-push.json");
const GITLAB: &[u8] = include_bytes!("../../tests/fixtures/webhooks/gitlab-push.json");
const GITEA: &[u8] = include_bytes!("../../tests/fixtures/webhooks/gitea-push.json");

const GITHUB_TAG: &[u8] = include_bytes!("../../tests/fixtures/webhooks/github-tag.json");
const GITLAB_TAG: &[u8] = include_bytes!("../../tests/fixtures/webhooks/gitlab-tag.json");

fn now() -> Time {
    Time::from_second(1_763_700_000).unwrap()
}

fn hook(forge: Forge) -> Hook {
    Hook {
        forge,
        secret: Secret::new("It's a Secret to Everybody"),
        repositories: vec!["https://git.example/team/*".into(), "https://git.example/one".into()],
        branches: vec![],
        tags: vec![],
    }
}

fn sign(hook: &Hook, body: &[u8]) -> HeaderMap {
    let key = hmac::Key::new(hmac::HMAC_SHA256, hook.secret.expose().as_bytes());
    let mac = hex::encode(hmac::sign(&key, body));
    let pairs = match hook.forge {
        Forge::Github => {
            [("x-github-event", "push".into()), ("x-hub-signature-256", format!("sha256={mac}"))]
        }
        Forge::Gitea => [("x-gitea-event", "push".into()), ("x-gitea-signature", mac)],
        Forge::Gitlab => [
            ("x-gitlab-event", "Push Hook".into()),
            ("x-gitlab-token", hook.secret.expose().to_owned()),
        ],
        Forge::Git => [(EVENT, "push".into()), (SIGNATURE, format!("sha256={mac}"))],
    };
    pairs
        .map(|(k, v): (&'static str, String)| (k.parse().unwrap(), v.parse().unwrap()))
        .into_iter()
        .collect()
}

fn heard(forge: Forge, body: &[u8]) -> Result<Heard, HookError> {
    let hook = hook(forge);
    hear(&hook, &sign(&hook, body), body, now())
}

/// The example of GitHub's page on validating deliveries.
#[test]
fn the_published_example_of_a_signature_fits() {
    let hook = hook(Forge::Github);
    let mut headers = HeaderMap::new();
    let mac = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    headers.insert("x-hub-signature-256", mac.parse().unwrap());
    assert!(signed(&hook, &headers, b"Hello, World!"));
    assert!(!signed(&hook, &headers, b"Hello, World?"));
}

#[test]
fn a_push_of_each_forge_gives_repository_reference_and_commit() {
    for (forge, body) in [(Forge::Github, GITHUB), (Forge::Gitlab, GITLAB), (Forge::Gitea, GITEA)] {
        let Ok(Heard::Push(push)) = heard(forge, body) else { panic!("{:?}", heard(forge, body)) };
        assert_eq!(push.url, "https://git.example/team/web.git");
        assert_eq!(push.reference, "refs/heads/main");
        assert_eq!(push.commit, "da1560886d4f094c3e6c9ef40349f7d38b5d27d7");
        assert_eq!(push.by, "ada");
    }
}

#[test]
fn without_the_right_signature_nothing_is_heard() {
    for (forge, body) in [(Forge::Github, GITHUB), (Forge::Gitlab, GITLAB), (Forge::Gitea, GITEA)] {
        let (hook, mut other) = (hook(forge), hook(forge));
        other.secret = Secret::new("x");
        assert_eq!(hear(&hook, &sign(&other, body), body, now()), Err(HookError::Signature));
        assert_eq!(hear(&hook, &HeaderMap::new(), body, now()), Err(HookError::Signature));
        other.secret = Secret::new("");
        assert_eq!(hear(&other, &sign(&other, body), body, now()), Err(HookError::Signature));
        if forge != Forge::Gitlab {
            assert_eq!(
                hear(&hook, &sign(&hook, body), &body[1..], now()),
                Err(HookError::Signature)
            );
        }
    }
}

#[test]
fn other_repositories_branches_and_events_are_not_built() {
    let mut h = hook(Forge::Gitea);
    h.repositories =
        vec!["https://git.example/team/we".into(), "https://git.example/other/*".into()];
    assert!(matches!(hear(&h, &sign(&h, GITEA), GITEA, now()), Err(HookError::Repository(_))));
    h.repositories = vec!["https://git.example/team/web".into()];
    assert!(matches!(hear(&h, &sign(&h, GITEA), GITEA, now()), Ok(Heard::Push(_))));
    h.branches = vec!["release".into()];
    assert!(matches!(hear(&h, &sign(&h, GITEA), GITEA, now()), Ok(Heard::Nothing(_))));
    let mut ping = sign(&h, GITEA);
    ping.insert("x-gitea-event", "ping".parse().unwrap());
    assert_eq!(hear(&h, &ping, GITEA, now()), Ok(Heard::Nothing("a ping: the secret is right")));
    let text = String::from_utf8(GITEA.to_vec()).unwrap();
    let gone = text.replace("da1560886d4f094c3e6c9ef40349f7d38b5d27d7", &"0".repeat(40));
    assert!(matches!(heard(Forge::Gitea, gone.as_bytes()), Ok(Heard::Nothing(_))));
    for (from, to) in
        [("https://git.example/team/web.git", "ext::sh"), ("refs/heads/main", "--upload-pack=x")]
    {
        let said = heard(Forge::Gitea, text.replace(from, to).as_bytes());
        assert!(matches!(said, Err(HookError::Body { .. })), "{said:?}");
    }
}

#[test]
fn a_tag_is_heard_with_the_commit_it_points_to() {
    for (forge, body) in [(Forge::Github, GITHUB_TAG), (Forge::Gitlab, GITLAB_TAG)] {
        let mut h = hook(forge);
        let mut headers = sign(&h, body);
        if forge == Forge::Gitlab {
            headers.insert("x-gitlab-event", "Tag Push Hook".parse().unwrap());
        }
        h.tags = vec!["v*".into()];
        let Ok(Heard::Push(push)) = hear(&h, &headers, body, now()) else {
            panic!("{:?}", hear(&h, &headers, body, now()))
        };
        assert_eq!(push.reference, "refs/tags/v1.0.0");
        assert_eq!(push.commit, "5937ac0a7beb003549fc5fd26fc247adbce4a52e");
        for (rule, want) in [
            ("{commit}", "5937ac0a7beb"),
            ("{ref}", "v1.0.0"),
            ("latest", "latest"),
            ("{ref}-{commit}", "v1.0.0-5937ac0a7beb"),
        ] {
            assert_eq!(tag(rule, &push), want);
        }
        let odd = Push { reference: "refs/heads/.x/y+z".into(), ..push };
        assert_eq!(tag("{ref}", &odd), "_x-y-z");
        h.tags = vec!["w*".into()];
        assert!(matches!(hear(&h, &headers, body, now()), Ok(Heard::Nothing(_))));
        (h.tags, h.branches) = (vec![], vec!["*".into()]);
        assert!(matches!(hear(&h, &headers, body, now()), Ok(Heard::Nothing(_))));
    }
}

#[test]
fn patterns_stand_for_whole_names() {
    assert!(matches("*", "x/y"));
    for (pattern, yes, no) in [
        ("main", "main", "mainly"),
        ("release/*", "release/1.2", "prerelease/1"),
        ("*-rc", "1-rc", "1-rc2"),
        ("a*b*c", "a-b-b-c", "a-c-b"),
    ] {
        assert!(matches(pattern, yes), "{pattern} {yes}");
        assert!(!matches(pattern, no), "{pattern} {no}");
    }
}

#[test]
fn our_own_announcement_is_heard_while_it_is_fresh() {
    let mut h = hook(Forge::Git);
    h.repositories = vec!["file:///srv/git/web.git".into()];
    let said = Announcement {
        repository: "file:///srv/git/web.git".into(),
        reference: "refs/heads/main".into(),
        before: "0".repeat(40),
        after: "a".repeat(40),
        pusher: "ada".into(),
        sent: 1_763_700_000,
        delivery: "one".into(),
    };
    let (body, signature) = said.sealed(&h.secret);
    let headers: HeaderMap = [(EVENT, "push"), (SIGNATURE, signature.as_str())]
        .map(|(k, v): (&'static str, &str)| (k.parse().unwrap(), v.parse().unwrap()))
        .into_iter()
        .collect();
    let at = |seconds: i64| hear(&h, &headers, &body, Time::from_second(seconds).unwrap());
    assert!(matches!(at(1_763_700_000), Ok(Heard::Push(p)) if p.by == "ada"));
    assert!(matches!(at(1_763_700_000 + 599), Ok(Heard::Push(_))));
    assert_eq!(at(1_763_700_000 + 601), Err(HookError::Stale(601)));
    assert_eq!(at(1_763_700_000 - 700), Err(HookError::Stale(700)));
    let other = Announcement { delivery: "two".into(), ..said };
    assert_ne!(marks(&h, &headers, &body), marks(&h, &headers, &other.sealed(&h.secret).0));
}

#[test]
fn a_delivery_is_known_again_by_number_and_by_body() {
    let h = hook(Forge::Github);
    let numbered = |n: &str| {
        let mut headers = sign(&h, GITHUB);
        headers.insert("x-github-delivery", n.parse().unwrap());
        marks(&h, &headers, GITHUB)
    };
    let (one, two) = (numbered("1"), numbered("2"));
    assert_eq!(one.len(), 2);
    assert_eq!(one[0], two[0], "the body is the same");
    assert_ne!(one[1], two[1]);
}

#[test]
fn a_form_is_told_what_to_change() {
    let h = hook(Forge::Github);
    let body = b"payload=%7B%7D";
    let mut headers = sign(&h, body);
    let kind = "application/x-www-form-urlencoded";
    headers.insert("content-type", kind.parse().unwrap());
    let said = hear(&h, &headers, body, now()).unwrap_err().to_string();
    assert!(said.contains("application/json"), "{said}");
}

proptest! {
    #[test]
    fn no_body_panics(body in "[\\[\\]{}\":,a-z0]{0,60}") {
        for forge in [Forge::Github, Forge::Gitlab, Forge::Gitea, Forge::Git] {
            let _ = heard(forge, body.as_bytes());
        }
    }
}
