//! The operator's window as a browser meets it: who gets in, what is refused
//! and written down, what the pages say, and that text stays text.

mod common;
mod windowd;

use futures::StreamExt as _;
use provision::auth::{Role, session};
use provision::model::{Digest, LifeCycle, NewEvent, Outcome, Time};
use reqwest::Method;
use std::time::Duration;
use windowd::stock::HOSTILE;
use windowd::{Bench, Visitor};

const PAGES: [&str; 14] = [
    "/ui/",
    "/ui/?state=failed",
    "/ui/?q=node03",
    "/ui/nodes/node01",
    "/ui/nodes/node02",
    "/ui/nodes/node03",
    "/ui/nodes/node09",
    "/ui/builds",
    "/ui/operations",
    "/ui/events",
    "/ui/images",
    "/ui/profiles",
    "/ui/mirrors",
    "/ui/software",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_the_window_and_a_wrong_one_is_refused_and_written_down() {
    let b = Bench::start().await;
    let nobody = Visitor::new(&b.base);
    let root = nobody.get("/").await;
    assert_eq!((root.status, root.header("location")), (303, "/ui/"));
    let away = nobody.get("/ui/nodes/node01?x=1").await;
    assert_eq!(away.status, 303);
    assert_eq!(away.header("location"), "/ui/login?next=%2Fui%2Fnodes%2Fnode01%3Fx%3D1");

    let wrong = nobody.raw_post("/ui/login", &[], &[("token", "pv_0000")]).await;
    assert_eq!((wrong.status, wrong.cookie.as_str()), (401, ""));
    assert!(wrong.text.contains("not known here") && !wrong.text.contains("pv_0000"));
    let e = b.events("ui.refused").await;
    assert_eq!((e.len(), e[0].event.actor.as_str()), (1, "nobody"));

    let token = b.token("ada", Role::Read);
    let fields = [("token", token.as_str()), ("next", "/ui/nodes/node01")];
    let r = nobody.raw_post("/ui/login", &[], &fields).await;
    assert_eq!((r.status, r.header("location")), (303, "/ui/nodes/node01"));
    let set = r.header("set-cookie");
    for part in ["provision=", "HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(set.contains(part), "{set}");
    }
    assert!(!set.contains(&token), "the cookie holds the token");
    let ada = Visitor { cookie: r.cookie, ..nobody };
    assert!(ada.page("/ui/nodes/node01").await.text.contains("ada <small>read</small>"));
    assert_eq!(b.events("ui.login").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_with_its_time_its_token_or_a_logout() {
    let b = Bench::start().await;
    let token = b.token("ada", Role::Operate);
    let digest = Digest::of(token.as_bytes());
    let with = |until: Time| {
        let c = b.ctx.key.open_session(&digest, until).unwrap();
        Visitor { cookie: format!("provision={}", c.expose()), ..Visitor::new(&b.base) }
    };
    assert_eq!(with(Time::now() + session::LASTS).get("/ui/").await.status, 200);
    let late = with(Time::now() - jiff::SignedDuration::from_secs(1));
    assert_eq!(late.get("/ui/").await.status, 303, "expired");

    let ada = with(Time::now() + session::LASTS);
    let copy = ada.clone();
    let form = ada.page("/ui/").await.field("form");
    let out = ada.post("/ui/logout", &form, &[]).await;
    assert!(out.header("set-cookie").contains("Max-Age=0"), "{out:?}");
    assert_eq!(copy.get("/ui/").await.status, 303, "a copy of the cookie outlives the logout");

    let again = with(Time::now() + session::LASTS);
    assert_eq!(again.get("/ui/").await.status, 200);
    b.ctx.tokens.write().unwrap().remove(&digest);
    assert_eq!(again.get("/ui/").await.status, 303, "revoked");
    let by_script = again.request(Method::GET, "/ui/").header("x-part", "main");
    assert_eq!(by_script.send().await.unwrap().status(), 401, "a script is told, not led away");

    // Root of the local socket is nobody here.
    let root = Visitor::new(&b.local);
    assert_eq!(root.get("/v1/nodes").await.status, 200);
    assert_eq!(root.get("/ui/").await.status, 303);
    assert_eq!(root.post("/ui/nodes/node01/power", "", &[("command", "on")]).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_without_the_form_of_its_session_or_from_elsewhere_does_nothing() {
    let b = Bench::start().await;
    let (ada, bob) = (b.visitor("ada", Role::Operate).await, b.visitor("bob", Role::Operate).await);
    let form = ada.page("/ui/nodes/node01").await.field("form");
    let others = bob.page("/ui/nodes/node01").await.field("form");
    let path = "/ui/nodes/node01/power";
    for wrong in ["", "0", others.as_str()] {
        let r = ada.post(path, wrong, &[("command", "on")]).await;
        assert_eq!(r.status, 403, "{wrong:?}");
        assert!(r.text.contains("nothing was done"), "{}", r.text);
    }
    let fields = [("form", form.as_str()), ("command", "on")];
    for header in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil"),
    ] {
        assert_eq!(ada.raw_post(path, &[header], &fields).await.status, 403, "{header:?}");
    }
    let refused = b.events("ui.refused").await;
    assert_eq!(refused.len(), 6);
    assert!(refused.iter().all(|e| e.event.actor == "ada" && e.event.detail["what"] == path));
    assert!(b.events("power").await.is_empty(), "something was done");
    let huge = "x".repeat(40_000);
    assert_eq!(ada.post(path, &huge, &[]).await.status, 413);

    let r = ada.post(path, &form, &[("command", "on")]).await;
    assert_eq!((r.status, r.header("location")), (303, "/ui/nodes/node01"));
    assert!(!b.events("power.on").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_read_sees_no_buttons_and_is_refused_behind_them() {
    let b = Bench::start().await;
    let eve = b.visitor("eve", Role::Read).await;
    let page = eve.page("/ui/nodes/node01").await;
    assert!(!page.text.contains("Power-cycle") && !page.text.contains("Install…"), "{}", page.text);
    let form = page.field("form");
    let ops = eve.page("/ui/operations").await;
    assert!(!ops.text.contains("Give up"));
    for (path, command) in [
        ("/ui/nodes/node01/power", "off"),
        ("/ui/nodes/node01/install", ""),
        ("/ui/nodes/node01/power", "on"),
    ] {
        let r = eve.post(path, &form, &[("command", command), ("profile", "base")]).await;
        assert_eq!(r.status, 403, "{path}");
        assert!(r.text.contains("needs the role controller"), "{}", r.text);
    }
    let id = b.rack.running_build(&"node02".parse().unwrap()).unwrap().operation.clone();
    assert_eq!(eve.post(&format!("/ui/operations/{id}/cancel"), &form, &[]).await.status, 403);
    assert_eq!(eve.get("/ui/nodes/node01/install?profile=base").await.status, 403);
    let e = b.events("api.refused").await;
    assert_eq!(e.len(), 5);
    assert!(e.iter().all(|e| e.event.actor == "eve"));
    assert!(b.rack.running_build(&"node02".parse().unwrap()).is_some(), "it was cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_install_is_asked_with_machine_disk_and_what_is_on_it_and_then_done_once() {
    let b = Bench::start().await;
    let ada = b.visitor("ada", Role::Operate).await;
    let ask = ada.page("/ui/nodes/node04/install?profile=base&image=debian-12").await;
    for said in
        ["node04", "7XKQ042", "A-0004", "PHYF042004", "480.1 GB", "debian-12 / base, 3 d ago"]
    {
        assert!(ask.text.contains(said), "{said} is not in {}", ask.text);
    }
    assert!(b.events("install").await.iter().all(|e| e.event.detail.contains_key("client")));
    let (form, seen) = (ask.field("form"), ask.field("seen"));
    let fields = [("profile", "base"), ("image", "debian-12"), ("mirror", ""), ("seen", &seen)];
    let path = "/ui/nodes/node04/install";

    // Not what was confirmed: nothing happens.
    let other = ada.post(path, &form, &[("profile", "base"), ("seen", "0123456789ab")]).await;
    assert_eq!(other.status, 409);
    assert!(other.text.contains("look at it again"), "{}", other.text);
    let node = || {
        let v = b.rack.view();
        (**v.inventory.find("node04").unwrap()).clone()
    };
    assert_eq!(node().status.life, LifeCycle::Deployed);

    let done = ada.post(path, &form, &fields).await;
    assert_eq!((done.status, done.header("location")), (303, "/ui/nodes/node04"), "{}", done.text);
    let build = b.rack.running_build(&"node04".parse().unwrap()).unwrap();
    assert_eq!((build.actor.as_str(), build.inputs.profile.as_str()), ("ada", "base"));

    // Again by mistake: the page names what it is busy with.
    let ask = ada.page("/ui/nodes/node04/install?profile=base&image=debian-12").await;
    let seen = ask.field("seen");
    let fields = [("profile", "base"), ("image", "debian-12"), ("seen", seen.as_str())];
    let twice = ada.post(path, &form, &fields).await;
    assert_eq!(twice.status, 409);
    assert!(twice.text.contains(&format!("/ui/operations#{}", build.operation)), "{}", twice.text);

    // And given up, after a question.
    let cancel = format!("/ui/operations/{}/cancel", build.operation);
    let ask = ada.page(&cancel).await;
    assert!(ask.text.contains("has to be installed again"), "{}", ask.text);
    assert_eq!(ada.post(&cancel, &form, &[]).await.status, 303);
    assert!(b.rack.running_build(&"node04".parse().unwrap()).is_none());

    // What cannot be had is said before it is asked for.
    let none = ada.get("/ui/nodes/node04/install?profile=bass").await;
    assert!(none.status == 404 && none.text.contains("base"), "{}", none.text);
}

/// The page's tags, in order, opened and closed; panics where they do not
/// nest.
fn must_nest(path: &str, html: &str) {
    let void = ["meta", "link", "input", "rect", "br", "path"];
    let (mut open, mut rest) = (Vec::new(), html);
    while let Some(at) = rest.find('<') {
        let end = rest[at..].find('>').unwrap_or_else(|| panic!("{path}: an open tag")) + at;
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        let name: String =
            tag.trim_start_matches('/').chars().take_while(char::is_ascii_alphanumeric).collect();
        if tag.starts_with('!') || void.contains(&name.as_str()) || tag.ends_with('/') {
            continue;
        }
        if tag.starts_with('/') {
            let last = open.pop();
            assert_eq!(
                last.as_deref(),
                Some(name.as_str()),
                "{path}: before {}",
                &rest[..rest.len().min(80)]
            );
        } else {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{path}: {open:?} is open");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_whole_strict_and_hostile_text_stays_text() {
    let b = Bench::start().await;
    let ada = b.visitor("ada", Role::Operate).await;
    let v = b.rack.running_build(&"node02".parse().unwrap()).unwrap().id.clone();
    let of_build = [format!("/ui/builds/{v}"), format!("/ui/builds/{v}/files")];
    for path in PAGES.into_iter().chain(of_build.iter().map(String::as_str)) {
        let page = ada.page(path).await;
        must_nest(path, &page.text);
        assert_eq!(page.text.matches("<h1").count(), 1, "{path}");
        assert!(page.text.contains("<html lang=\"en\">") && page.text.contains("<main"), "{path}");
        assert!(!page.text.contains("<script>") && !page.text.contains('\u{202e}'), "{path}");
        assert!(!page.text.contains(" style="), "{path}: inline style");
        let handlers = ["onclick=", "onload=", "onerror=", "onsubmit=", "javascript:"];
        assert!(handlers.iter().all(|h| !page.text.contains(h)), "{path}: inline script");
        let policy = page.header("content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert_eq!(page.header("x-content-type-options"), "nosniff");
        assert_eq!(page.header("referrer-policy"), "no-referrer");
        assert_eq!(page.header("cache-control"), "no-store");
    }
    let shown = "&#60;script&#62;alert(1)&#60;/script&#62;⟨U+202E⟩txt";
    assert!(HOSTILE.contains("<script>"));
    let log = format!("/ui/builds/{v}");
    for path in
        ["/ui/", "/ui/nodes/node01", "/ui/nodes/node02", "/ui/nodes/node03", "/ui/events", &log]
    {
        assert!(ada.page(path).await.text.contains(shown), "{path} does not show it");
    }
    // A question that tries the same.
    let asked = ada.page("/ui/events?text=%22%3E%3Cscript%3Ealert(1)%3C/script%3E").await;
    assert!(asked.text.contains("No event fits") || asked.text.contains(shown));
    let raw = ada.get(&format!("/ui/builds/{v}/log")).await;
    assert_eq!(raw.header("content-type"), "text/plain; charset=utf-8");
    assert!(raw.text.contains(HOSTILE) && raw.header("content-security-policy").contains("'none'"));

    for path in ["/ui/nodes/node02".to_owned(), format!("/ui/builds/{v}")] {
        let page = ada.page(&path).await.text;
        assert!(page.contains("Linux version 6.12.48"), "{path} shows the console");
    }
    let whole = ada.get(&format!("/ui/builds/{v}/console")).await;
    assert_eq!(whole.header("content-type"), "text/plain; charset=utf-8");
    assert!(whole.text.ends_with(&format!("{HOSTILE}\n")), "{}", whole.text);
    let ask = reqwest::Client::new();
    let from = |at: u64| ask.get(format!("{}/v1/builds/{v}/console?offset={at}", b.local)).send();
    let rest = from(whole.text.len() as u64 - 4).await.unwrap().text().await.unwrap();
    assert_eq!(rest.as_bytes(), b"txt\n", "what is new");
    let none = from(1 << 40).await.unwrap();
    assert_eq!((none.status().as_u16(), none.text().await.unwrap().as_str()), (200, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rack_names_each_node_and_what_is_stuck_comes_first() {
    let b = Bench::start().await;
    let ada = b.visitor("ada", Role::Read).await;
    let page = ada.page("/ui/").await.text;
    for n in 1..=9 {
        assert!(page.contains(&format!("/ui/nodes/node{n:02}\"")), "node{n:02}");
    }
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text:?} is not in {page}"));
    assert!(at("failed in phase loader") < at("the installer asks and waits"));
    assert!(at("takes longer than the usual") < at("<h2 id=\"h-nodes\">"));
    assert!(page.contains("43 % of 1.0 GB") && page.contains("b0:83:fe:00:00:99"));
    let one = ada.page("/ui/?state=failed").await.text;
    assert!(one.contains("1 of 9 nodes"), "{one}");

    b.store.set_down(true);
    let _ = b.rack.log(vec![NewEvent::new(Time::now(), "x", "y", Outcome::Ok)]).await;
    let page = ada.page("/ui/").await.text;
    assert!(page.contains("the store cannot be used"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_said_inside_the_window_with_what_would_be_right() {
    let b = Bench::start().await;
    let ada = b.visitor("ada", Role::Read).await;
    for (path, said) in [
        ("/ui/nodes/node99", "did you mean"),
        ("/ui/nope", "no such page"),
        ("/ui/builds/b-0", "there is no build"),
        ("/ui/nodes/..%2f..%2fetc", "there is no node"),
    ] {
        let r = ada.get(path).await;
        assert_eq!(r.status, 404, "{path}");
        assert!(r.text.contains(said) && r.text.contains("aria-label=\"Pages\""), "{}", r.text);
        must_nest(path, &r.text);
    }
    let odd = ada.page("/ui/events?since=yesterday").await.text;
    assert!(odd.contains("2h or 7d"), "{odd}");
    let style = ada.page("/ui/").await.text;
    let at = style.find("/ui/style.css?v=").unwrap();
    let css = &style[at..at + style[at..].find('"').unwrap()];
    let got = Visitor::new(&b.base).page(css).await;
    assert!(got.header("cache-control").contains("immutable"));
    let again = ada.request(Method::GET, css).header("if-none-match", got.header("etag"));
    assert_eq!(again.send().await.unwrap().status(), 304);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_searched_and_leafed_through_without_a_gap() {
    let b = Bench::start().await;
    let ada = b.visitor("ada", Role::Read).await;
    let node = "node05".parse().unwrap();
    for n in 0..250 {
        let e = NewEvent::new(Time::now(), "server", "test.tick", Outcome::Info).node(&node);
        b.rack.log(vec![e.with("n", format!("tick-{n:03}."))]).await.unwrap();
    }
    let (mut path, mut seen) =
        ("/ui/events?node=node05&action=test.&text=TICK".to_owned(), Vec::new());
    for _ in 0..3 {
        let page = ada.page(&path).await.text;
        seen.extend(page.match_indices("tick-").map(|(i, _)| page[i..i + 8].to_owned()));
        let Some(older) = page.find("Older ones") else { break };
        let at = page[..older].rfind("href=\"").unwrap() + 6;
        path = page[at..at + page[at..].find('"').unwrap()].replace("&#38;", "&");
    }
    let want: Vec<String> = (0..250).rev().map(|n| format!("tick-{n:03}")).collect();
    assert_eq!(seen, want);
    assert!(ada.page("/ui/events?text=tick-249").await.text.contains("tick-249"));
    assert!(ada.page("/ui/events?action=nothing").await.text.contains("No event fits"));
}

/// Ids of the next `n` messages.
async fn ids(r: reqwest::Response, n: usize) -> Vec<u64> {
    let (mut text, mut body) = (String::new(), r.bytes_stream());
    let found = |t: &str| -> Vec<u64> {
        let whole = t.rsplit_once("\n\n").map_or("", |p| p.0);
        whole.lines().filter_map(|l| l.strip_prefix("id:")?.trim().parse().ok()).collect()
    };
    let all = async {
        while found(&text).len() < n {
            let piece = body.next().await.expect("the stream ended").unwrap();
            text.push_str(std::str::from_utf8(&piece).unwrap());
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.expect("no news in 20 s");
    found(&text)
}

#[tokio::test(flavor = "multi_thread")]
async fn news_go_on_from_the_last_that_was_heard_and_end_with_the_session() {
    let b = Bench::start().await;
    let ada = b.visitor("ada", Role::Read).await;
    let say = async |n: u64| {
        for _ in 0..n {
            let e = NewEvent::new(Time::now(), "server", "test.news", Outcome::Info);
            b.rack.log(vec![e]).await.unwrap();
        }
    };
    let page = ada.page("/ui/").await.text;
    let at = page.find("data-seq=\"").unwrap() + 10;
    let seq: u64 = page[at..at + page[at..].find('"').unwrap()].parse().unwrap();
    // Between the page and the stream: not lost.
    say(3).await;
    let r = ada.request(Method::GET, &format!("/ui/live?after={seq}")).send().await.unwrap();
    assert_eq!(r.headers()["content-type"], "text/event-stream");
    say(2).await;
    let first = ids(r, 5).await;
    assert_eq!(first, (seq + 1..=seq + 5).collect::<Vec<_>>());
    // A browser that comes back says what it heard last; the address is old.
    say(4).await;
    let again = ada.request(Method::GET, &format!("/ui/live?after={seq}"));
    let r = again.header("last-event-id", (seq + 4).to_string()).send().await.unwrap();
    assert_eq!(ids(r, 5).await, (seq + 5..=seq + 9).collect::<Vec<_>>());

    let nobody = Visitor::new(&b.base).request(Method::GET, "/ui/live");
    let r = nobody.header("accept", "text/event-stream").send().await.unwrap();
    assert_eq!(r.status(), 401);
    let r = ada.request(Method::GET, "/ui/live").send().await.unwrap();
    b.ctx.tokens.write().unwrap().clear();
    let mut body = r.bytes_stream();
    let end = async { while body.next().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(20), end).await.expect("goes on after the revocation");
}
