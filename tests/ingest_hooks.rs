//! Pushes become images: a real `git push` to a bare repository, and the calls
//! of GitHub, GitLab and Gitea as they document them, over TLS by curl. Needs
//! root, git and buildah (scripts/deps.sh).

mod deployd;

use deployd::{Ended, Server, run};
use ring::hmac;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const SECRET: &str = "It's a Secret to Everybody";
const GITHUB: &str = include_str!("fixtures/webhooks/github-push.json");
const GITHUB_PING: &str = include_str!("fixtures/webhooks/github-ping.json");
const GITLAB: &str = include_str!("fixtures/webhooks/gitlab-push.json");
const GITLAB_TAG: &str = include_str!("fixtures/webhooks/gitlab-tag.json");
const GITEA: &str = include_str!("fixtures/webhooks/gitea-push.json");
const COMMIT: &str = "da1560886d4f094c3e6c9ef40349f7d38b5d27d7";
const TAGGED: &str = "5937ac0a7beb003549fc5fd26fc247adbce4a52e";
/// Where nothing answers: what is built from there fails, on this host.
const NOWHERE: &str = "https://127.0.0.1:1/";

/// Names and values.
type Headers<'a> = &'a [(&'a str, &'a str)];

fn sh(dir: &Path, script: &str) -> Ended {
    run(Command::new("sh").args(["-euc", script]).current_dir(dir).env("HOME", dir), "")
}

/// A bare repository with one commit on `main`, and a working copy `work`.
fn repository(dir: &Path) -> String {
    sh(
        dir,
        "git config --global user.name Ada; git config --global user.email ada@example.org
        git init -q --bare -b main web.git
        git init -q -b main work; cd work; git remote add origin ../web.git
        printf 'FROM scratch\\nCOPY page /page\\n' > Dockerfile; echo one > page
        git add .; git commit -qm one; git rev-parse HEAD",
    )
    .ok()
    .trim()
    .to_owned()
}

fn hook(name: &str, kind: &str, repository: &str, more: &str) -> String {
    format!(
        "\n[[ingest.hooks]]\nname = \"{name}\"\nkind = \"{kind}\"\nsecret_file = \"secret\"\n\
         repositories = [\"{repository}\"]\n{more}"
    )
}

fn secret(dir: &Path) {
    fs::write(dir.join("secret"), format!("{SECRET}\n")).unwrap();
    fs::set_permissions(dir.join("secret"), PermissionsExt::from_mode(0o600)).unwrap();
}

fn mac(body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    hex::encode(hmac::sign(&key, body.as_bytes()))
}

/// A call as a forge makes it: without a token, over TLS.
fn call(s: &Server, name: &str, headers: Headers<'_>, body: &str) -> (u16, Value) {
    let file = s.dir.join("body");
    fs::write(&file, body).unwrap();
    let mut c = Command::new("curl");
    c.args(["--silent", "--show-error", "--write-out", "\n%{http_code}", "--cacert"]);
    c.arg(s.state().join("tls/ca.pem"));
    c.args(["--header", "content-type: application/json", "--header", "expect:"]);
    for (k, v) in headers {
        c.args(["--header", &format!("{k}: {v}")]);
    }
    c.arg("--data-binary").arg(format!("@{}", file.display()));
    c.arg(format!("https://{}/v1/hooks/{name}", s.at));
    let out = run(&mut c, "").ok();
    let (body, code) = out.rsplit_once('\n').unwrap();
    (code.parse().unwrap(), serde_json::from_str(body).unwrap_or(Value::Null))
}

fn github(s: &Server, number: &str, body: &str) -> (u16, Value) {
    let signature = format!("sha256={}", mac(body));
    let headers = [
        ("x-github-event", "push"),
        ("x-github-delivery", number),
        ("x-hub-signature-256", signature.as_str()),
    ];
    call(s, "hub", &headers, body)
}

/// The record of a run when it is over.
fn over(s: &Server, id: &str) -> Value {
    // Follows it to its end; what came of it is in the record.
    s.cli(&["runs", "log", id]);
    s.json(&["runs", "show", id])
}

#[test]
fn a_git_push_ends_in_the_registry() {
    let dir = tempfile::tempdir().unwrap();
    let commit = repository(dir.path());
    let url = format!("file://{}/web.git", dir.path().display());
    let more = "image = \"shop/web\"\ntag = \"{ref}\"\nbranches = [\"main\", \"release/*\"]\n";
    let mut s =
        Server::new(dir.path(), &format!("gc_hours = 0\n{}", hook("web", "git", &url, more)));
    s.daemon(&["init"]).ok();
    let (at, ca) = (format!("https://{}", s.at), s.state().join("tls/ca.pem"));
    let install = |s: &Server| {
        let bare = dir.path().join("web.git");
        let file = dir.path().join("secret");
        s.cli(&[
            "--deployment",
            &at,
            "--ca",
            ca.to_str().unwrap(),
            "hook",
            "install",
            bare.to_str().unwrap(),
            "--name",
            "web",
            "--secret-file",
            file.to_str().unwrap(),
        ])
    };
    let said = install(&s).ok();
    assert!(said.contains("kind = \"git\"") && said.contains(&url), "{said}");
    let made = fs::metadata(dir.path().join("secret")).unwrap();
    assert_eq!(made.permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(dir.path().join("secret")).unwrap();
    assert_eq!(text.trim().len(), 64);
    // Again, and over what is not ours.
    install(&s).ok();
    let script = dir.path().join("web.git/hooks/post-receive");
    let ours = fs::read_to_string(&script).unwrap();
    assert!(!ours.contains(text.trim()), "the secret is in the script");
    fs::write(&script, "#!/bin/sh\necho mine\n").unwrap();
    install(&s).fails(2, "is not ours");
    fs::write(&script, ours).unwrap();
    s.start();

    let push = sh(&dir.path().join("work"), "HOME=.. git push origin main");
    assert_eq!(push.code, 0, "{}", push.err);
    assert!(push.err.contains("builds staging/shop/web:main"), "{}", push.err);
    let run = s.json(&["runs"])[0].clone();
    let run = over(&s, run["id"].as_str().unwrap());
    assert_eq!(run["state"], "done", "{run}");
    assert_eq!((&run["commit"], &run["source"]["url"]), (&commit.into(), &url.clone().into()));
    assert!(run["asked_by"].as_str().unwrap().starts_with("hook:web ("), "{run}");
    let anna = s.person("anna", &["staging/:pull"]);
    let plain = s.certs("plain", &[]);
    let pulled = s.pull(Some(&anna), &plain, "staging/shop/web:main").ok();
    assert_eq!(pulled.trim(), run["image_digest"]);
    let event = &s.events("hook.push")[0];
    assert_eq!(event["detail"]["run"], run["id"]);
    assert_eq!(event["detail"]["ref"], "refs/heads/main");

    // Two at once, one of them not built; and one that is taken away.
    let push = sh(
        &dir.path().join("work"),
        "export HOME=..; echo two > page; git commit -qam two; git branch release/1; git branch try
        git push origin release/1 try; git push origin :try",
    );
    assert_eq!(push.code, 0, "{}", push.err);
    assert!(push.err.contains("builds staging/shop/web:release-1"), "{}", push.err);
    assert!(push.err.contains("refs/heads/try: not built: not a branch"), "{}", push.err);
    assert!(push.err.contains("was deleted"), "{}", push.err);
    assert_eq!(s.json(&["runs"]).as_array().unwrap().len(), 2);

    // The push stands when the server is away, and whoever pushed is told.
    s.kill();
    let push = sh(&dir.path().join("work"), "HOME=.. git push origin HEAD:refs/heads/main");
    assert_eq!(push.code, 0, "{}", push.err);
    assert!(push.err.contains("is pushed, and not built"), "{}", push.err);
    // A secret of somebody else.
    fs::write(dir.path().join("secret"), "0".repeat(64)).unwrap();
    let other = fs::read_to_string(dir.path().join("secret")).unwrap();
    fs::write(dir.path().join("secret"), text).unwrap();
    s.start();
    fs::write(dir.path().join("secret"), other).unwrap();
    let push = sh(&dir.path().join("work"), "HOME=.. git push origin HEAD:refs/heads/release/2");
    assert!(push.err.contains("the signature is missing or wrong"), "{}", push.err);
    assert_eq!(s.events("hook.refused")[0]["actor"], "hook:web");
}

#[test]
fn the_calls_of_each_forge_are_heard_once_and_only_when_they_are_real() {
    let dir = tempfile::tempdir().unwrap();
    let commit = repository(dir.path());
    secret(dir.path());
    sh(&dir.path().join("work"), "HOME=.. git push -q origin main").ok();
    let local = format!("file://{}/web.git", dir.path().display());
    let far = format!("{NOWHERE}team/*");
    let hooks = [
        hook("hub", "github", &local, "branches = [\"main\"]\n"),
        hook("lab", "gitlab", &far, ""),
        hook("tea", "gitea", &far, "tag = \"{ref}-{commit}\"\n"),
    ];
    let mut s = Server::started(dir.path(), &format!("gc_hours = 0\n{}", hooks.concat()));

    // GitHub, to the end.
    let body = GITHUB.replace("https://git.example/team/web.git", &local).replace(COMMIT, &commit);
    let (code, said) = github(&s, "72d3162e-cc78-11e3-81ab-4c9367dc0958", &body);
    assert_eq!(code, 202, "{said}");
    let id = said["run"].as_str().unwrap().to_owned();
    let run = over(&s, &id);
    assert_eq!(run["state"], "done", "{run}");
    assert_eq!((&run["commit"], &run["tag"]), (&commit.as_str().into(), &commit[..12].into()));
    assert_eq!(run["asked_by"], "hook:hub (ada)");

    // Again: the same delivery, and the same body under another number; also
    // after a restart.
    for restart in [false, true] {
        if restart {
            s.kill();
            s.start();
        }
        for number in ["72d3162e-cc78-11e3-81ab-4c9367dc0958", "another"] {
            let (code, said) = github(&s, number, &body);
            assert_eq!((code, said["run"].as_str()), (200, Some(id.as_str())), "{said}");
            assert!(said["ignored"].as_str().unwrap().contains("taken before"), "{said}");
        }
    }

    // A ping, another branch, another event.
    let signature = format!("sha256={}", mac(GITHUB_PING));
    let headers = [("x-github-event", "ping"), ("x-hub-signature-256", signature.as_str())];
    let (code, said) = call(&s, "hub", &headers, GITHUB_PING);
    assert_eq!(code, 200);
    assert!(said["ignored"].as_str().unwrap().starts_with("a ping"), "{said}");
    let (code, said) = github(&s, "2", &body.replace("refs/heads/main", "refs/heads/try"));
    assert!(code == 200 && said["ignored"].is_string(), "{said}");
    let before = s.json(&["runs"]).as_array().unwrap().len();

    // Not real: no signature, a wrong one, a changed body, a made-up form.
    let good = format!("sha256={}", mac(&body));
    let long = "x".repeat((4 << 20) + 1);
    let altered = body.replace("\"ada\"", "\"eve\"");
    let elsewhere = GITHUB.replace("git.example", "git.elsewhere");
    let signed = format!("sha256={}", mac(&elsewhere));
    let form = format!("payload={}", "%7B%7D");
    let form_signed = format!("sha256={}", mac(&form));
    let cases: [(&str, Headers<'_>, &str, u16); 8] = [
        ("hub", &[("x-github-event", "push")], &body, 401),
        ("hub", &[("x-github-event", "push"), ("x-hub-signature-256", "sha256=00")], &body, 401),
        ("hub", &[("x-github-event", "push"), ("x-hub-signature-256", &good)], &altered, 401),
        ("hub", &[("x-github-event", "push"), ("x-hub-signature-256", &signed)], &elsewhere, 403),
        ("hub", &[("x-github-event", "push"), ("x-hub-signature-256", &form_signed)], &form, 400),
        ("lab", &[("x-gitlab-event", "Push Hook"), ("x-gitlab-token", "guess")], GITLAB, 401),
        ("hub", &[("x-github-event", "push")], &long, 413),
        ("nobody", &[], "{}", 404),
    ];
    for (name, headers, body, want) in &cases {
        let (code, said) = call(&s, name, headers, body);
        assert_eq!(code, *want, "{said}");
        assert!(said["detail"].is_string(), "{said}");
    }
    let refused = s.events("hook.refused");
    assert_eq!(refused.len(), cases.len());
    assert_eq!(s.json(&["runs"]).as_array().unwrap().len(), before, "something was built");

    // GitLab: by token, a branch and a tag; Gitea: by its own header. They get
    // nothing from where nothing answers, and the record says so.
    let near = |text: &str| text.replace("https://git.example/", NOWHERE);
    let lab = |event: &str, key: &str, body: &str| {
        let headers =
            [("x-gitlab-event", event), ("x-gitlab-token", SECRET), ("idempotency-key", key)];
        call(&s, "lab", &headers, body)
    };
    let (code, push) = lab("Push Hook", "k1", &near(GITLAB));
    assert_eq!(code, 202, "{push}");
    let (code, tag) = lab("Tag Push Hook", "k2", &near(GITLAB_TAG));
    assert_eq!(code, 202, "{tag}");
    assert_eq!(tag["image"], format!("staging/web:{}", &TAGGED[..12]));
    assert_eq!(lab("Push Hook", "k1", &near(GITLAB)).1["run"], push["run"]);
    let body = near(GITEA);
    let signature = mac(&body);
    let headers = [
        ("x-gitea-event", "push"),
        ("x-gitea-delivery", "f6266f16-1bf3-46a5-9ea4-602e06ead473"),
        ("x-gitea-signature", signature.as_str()),
    ];
    let (code, said) = call(&s, "tea", &headers, &body);
    assert_eq!(
        (code, &said["image"]),
        (202, &format!("staging/web:main-{}", &COMMIT[..12]).into())
    );
    let run = over(&s, said["run"].as_str().unwrap());
    assert_eq!(run["state"], "failed", "{run}");
    assert!(run["reason"].as_str().unwrap().contains("git fetch"), "{run}");

    // What is shown needs a token and holds no secret; nor does anything else.
    let get = |path: &str| {
        let mut c = Command::new("curl");
        c.args(["--silent", "--write-out", "\n%{http_code}", "--cacert"]);
        c.arg(s.state().join("tls/ca.pem")).arg(format!("https://{}{path}", s.at));
        run_ok(&mut c)
    };
    assert!(get("/v1/hooks").ends_with("401"));
    let shown = s.cli(&["hook"]).ok();
    assert!(shown.contains("/v1/hooks/hub") && shown.contains("github"), "{shown}");
    let log = fs::read_to_string(s.dir.join("log")).unwrap();
    let events = format!("{:?}", s.events(""));
    for text in [shown, log, events] {
        assert!(!text.contains(SECRET), "{text}");
    }
}

fn run_ok(c: &mut Command) -> String {
    run(c, "").ok()
}

#[test]
fn a_server_does_not_start_with_a_secret_that_others_may_read() {
    let dir = tempfile::tempdir().unwrap();
    secret(dir.path());
    let s = Server::new(dir.path(), &hook("hub", "github", "https://git.example/a.git", ""));
    let said = s.daemon(&["check"]).ok();
    assert!(said.contains("/v1/hooks/hub"), "{said}");
    fs::set_permissions(dir.path().join("secret"), PermissionsExt::from_mode(0o644)).unwrap();
    s.daemon(&["check"]).fails(1, "chmod 600");
    fs::remove_file(dir.path().join("secret")).unwrap();
    s.daemon(&["check"]).fails(1, "webhook hub");
}
