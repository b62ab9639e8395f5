//! The pipeline with a real builder: folders, uploads and git repositories
//! become images; what must not happen in a build does not. Needs root and
//! buildah (scripts/deps.sh).

mod ingest;

use ingest::{HOST, bench};
use provision::ingest::context::git::Protocol;
use provision::ingest::provenance::{ARTIFACT_TYPE, VerifyError, verify};
use provision::ingest::{
    Notice, Pipeline, PipelineSettings, Refused, Request, RunState, Shelf, Source,
};
use provision::model::Digest;
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_folder_becomes_an_attested_image() {
    let b = bench(|_| {}).await;
    let text = "# comment\nARG V=1\nFROM busybox:$V AS one\nRUN echo built > /made\n\
                FROM docker.io/library/busybox:1\nCOPY --from=one /made /made\nCOPY . /src/\n\
                COPY --from=busybox:1 /bin/sh /again\n";
    let folder = b.folder(
        "My App",
        &[("Dockerfile", text), ("a/hello", "hi"), ("junk.tmp", ""), (".dockerignore", "*.tmp\n")],
    );
    let run = b.built(Request::new(Source::Folder(folder.clone()), "ada")).await;
    assert_eq!((run.repository.as_str(), run.asked_by.as_str()), ("staging/my-app", "ada"));
    let digest = run.image_digest.clone().unwrap();
    assert_eq!(b.shelf.resolve(&run.reference()).await.unwrap().as_ref(), Some(&digest));
    assert_eq!(b.shelf.file(&digest, "made").as_deref(), Some("built\n"));
    assert_eq!(b.shelf.file(&digest, "src/a/hello").as_deref(), Some("hi"));
    assert_eq!(b.shelf.file(&digest, "src/junk.tmp"), None);
    let base = b.shelf.resolve("base/busybox:1").await.unwrap().unwrap();
    let bases: Vec<_> = run.bases.iter().map(|x| (x.name.as_str(), &x.digest)).collect();
    assert_eq!(bases, [("busybox:1", &base), ("docker.io/library/busybox:1", &base)]);
    let log = b.log(&run);
    assert!(log.contains("FROM busybox:1 AS one") && log.contains("COPY . /src/"), "{log}");
    assert!(!log.contains("oci:"), "{log}");

    // The attestation says so, and only as long as nobody changes it.
    let found = b.shelf.referrers(&run.repository, &digest, ARTIFACT_TYPE).await.unwrap();
    let [envelope] = found.as_slice() else { panic!("{}", found.len()) };
    let (key, image) = (b.pipeline.verifying_key(), digest.parse::<Digest>().unwrap());
    let said = verify(envelope, &key, &image).unwrap();
    assert_eq!((said.asked_by.as_str(), said.invocation.as_str()), ("ada", run.id.as_str()));
    assert_eq!(said.bases[0], ("busybox:1".to_owned(), base));
    let text = String::from_utf8(envelope.clone()).unwrap();
    let at = text.find("\"payload\":\"").unwrap() + 40;
    let mut changed = envelope.clone();
    changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
    assert_eq!(verify(&changed, &key, &image), Err(VerifyError::Tampered));

    // The same again is the same image; nothing of the work is left.
    let again = b.built(Request::new(Source::Folder(folder), "bob")).await;
    assert_eq!(again.image_digest, run.image_digest);
    assert_eq!(std::fs::read_dir(b.dir.path().join("state/runs")).unwrap().count(), 0);

    // What was built can be built on, by our own name.
    let mut next =
        b.wish("next", &format!("FROM {HOST}/{}\nRUN cat /src/a/hello > /x\n", run.reference()));
    next.tag = Some("v1".into());
    let next = b.built(next).await;
    assert_eq!(next.reference(), "staging/next:v1");
    assert_eq!(b.shelf.file(&next.image_digest.unwrap(), "x").as_deref(), Some("hi"));
}

#[tokio::test]
async fn a_failing_step_is_shown_with_its_last_lines() {
    let b = bench(|_| {}).await;
    let run =
        b.build(b.wish("bad", "FROM busybox:1\nRUN echo fine\nRUN echo oh no; exit 7\n")).await;
    let why = run.reason.clone().unwrap();
    assert_eq!(run.state, RunState::Failed);
    assert!(
        why.contains("step RUN echo oh no; exit 7 failed: exit status 7")
            && why.contains("\noh no"),
        "{why}"
    );
    assert!(run.image_digest.is_none() && run.ended.is_some());
}

#[tokio::test]
async fn a_missing_base_a_missing_file_and_a_stranger_are_named() {
    let b = bench(|_| {}).await;
    let why = b.build(b.wish("a", "\nFROM debian:12\n")).await.reason.unwrap();
    assert_eq!(
        why,
        "Dockerfile line 2: base image debian:12 is not in this registry; make it with \
        'provision base build debian:12', or take one with 'provision base import'"
    );
    let why = b.build(b.wish("b", "FROM busybox:1\nCOPY none /x\n")).await.reason.unwrap();
    assert!(why.contains("COPY none /x"), "{why}");
    let why =
        b.build(b.wish("c", "FROM busybox:1\nADD http://127.0.0.1:9/x /x\n")).await.reason.unwrap();
    assert!(why.contains("line 2: ADD http://127.0.0.1:9/x needs the network"), "{why}");
    let outside = Request::new(Source::Folder("/etc".into()), "eve");
    assert!(matches!(b.pipeline.submit(outside).await, Err(Refused::Folder { .. })));
    let mut wish = b.wish("d", "FROM busybox:1\n");
    wish.network = true;
    assert!(matches!(b.pipeline.submit(wish.clone()).await, Err(Refused::Network)));
    wish.network = false;
    wish.tag = Some("../x".into());
    assert!(matches!(b.pipeline.submit(wish).await, Err(Refused::Invalid(_))));
}

#[tokio::test]
async fn a_build_reaches_the_network_only_when_it_may() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answering = std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(b"hi").unwrap();
    });
    let b = bench(|s| s.allow_network = true).await;
    let text = format!("FROM busybox:1\nRUN busybox nc -w 3 127.0.0.1 {port} > /page\n");
    let mut wish = b.wish("net", &text);
    let run = b.build(wish.clone()).await;
    assert_eq!(run.state, RunState::Failed, "{}", b.log(&run));
    let why = run.reason.unwrap();
    assert!(why.contains("can't connect to remote host (127.0.0.1)"), "{why}");
    wish.network = true;
    let run = b.built(wish).await;
    assert!(run.network);
    assert_eq!(b.shelf.file(&run.image_digest.unwrap(), "page").as_deref(), Some("hi"));
    answering.join().unwrap();
}

/// Ways out of a changed root that are known.
#[tokio::test]
async fn a_build_cannot_leave_its_root() {
    let b = bench(|_| {}).await;
    let secret = b.dir.path().join("secret");
    std::fs::write(&secret, "host").unwrap();
    for (n, way) in [
        format!("busybox cat /proc/1/root{}", secret.display()),
        "busybox mkdir /j; busybox chroot /j /bin/true".to_owned(),
        "busybox mknod /disk b 254 0".to_owned(),
        "busybox mount -t tmpfs x /tmp".to_owned(),
        // Opened and not written: a test must do no harm where it fails.
        ": >> /proc/sysrq-trigger".to_owned(),
        ": >> /proc/sys/kernel/core_pattern".to_owned(),
        ": >> /sys/kernel/uevent_helper".to_owned(),
    ]
    .iter()
    .enumerate()
    {
        let run =
            b.build(b.wish(&format!("out{n}"), &format!("FROM busybox:1\nRUN {way}\n"))).await;
        assert_eq!(run.state, RunState::Failed, "{way}: {}", b.log(&run));
        let said = b.log(&run).to_lowercase();
        // "nonexistent": this kernel has no such file.
        let refused = ["not permitted", "denied", "read-only file system", "nonexistent"];
        assert!(refused.iter().any(|r| said.contains(r)), "{way}: {said}");
    }
    let devices = "FROM busybox:1\nRUN busybox find /dev ! -type d ! -type l > /devices\n";
    let run = b.built(b.wish("devices", devices)).await;
    let found = b.shelf.file(&run.image_digest.unwrap(), "devices").unwrap();
    let mut found: Vec<&str> = found.lines().map(|l| l.trim_start_matches("/dev/")).collect();
    found.sort_unstable();
    assert_eq!(found, ["full", "null", "pts/ptmx", "random", "tty", "urandom", "zero"]);
    // A link in the source leads nowhere outside of the context.
    let folder = b.folder("link", &[("Dockerfile", "FROM busybox:1\nCOPY secret /got\n")]);
    std::os::unix::fs::symlink(&secret, folder.join("secret")).unwrap();
    let run = b.build(Request::new(Source::Folder(folder), "eve")).await;
    let got = run.image_digest.and_then(|d| b.shelf.file(&d, "got"));
    assert_ne!(got.as_deref(), Some("host"));
}

#[tokio::test]
async fn one_name_is_built_one_at_a_time_and_the_queue_says_why() {
    let b = bench(|s| s.at_once = 2).await;
    let wish = b.wish("web", "FROM busybox:1\nRUN busybox sleep 1\n");
    let first = b.pipeline.submit(wish.clone()).await.unwrap();
    let second = b.pipeline.submit(wish).await.unwrap();
    assert_eq!(second.state, RunState::Queued);
    assert!(second.reason.unwrap().contains(first.id.as_str()));
    let other = b.pipeline.submit(b.wish("db", "FROM busybox:1\n")).await.unwrap();
    let other = b.pipeline.finished(&other.id).await.unwrap();
    let second = b.pipeline.finished(&second.id).await.unwrap();
    let first = b.pipeline.get(&first.id).unwrap();
    assert_eq!([first.state, second.state, other.state], [RunState::Done; 3]);
    assert!(second.started >= first.ended && other.started < first.ended);
    // Every state was written down.
    let saved = b.keep.saved.lock().unwrap();
    let states: Vec<RunState> =
        saved.iter().filter(|r| r.id == second.id).map(|r| r.state).collect();
    assert_eq!(states, [RunState::Queued, RunState::Running, RunState::Done]);
}

/// Processes whose command line has this word.
fn processes(word: &str) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    all.filter_map(|e| std::fs::read(e.path().join("cmdline")).ok())
        .filter(|c| String::from_utf8_lossy(c).split('\0').any(|w| w == word))
        .count()
}

/// The kernel may take a moment to clear away what was killed.
async fn none_left(word: &str) {
    let end = Instant::now() + Duration::from_secs(60);
    while processes(word) > 0 {
        assert!(Instant::now() < end, "{word} still runs");
        // Not synchronisation: the pace of asking.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn cancelling_ends_what_runs_and_what_waits() {
    let b = bench(|_| {}).await;
    let mut news = b.pipeline.watch();
    let long = b
        .pipeline
        .submit(b.wish("long", "FROM busybox:1\nRUN echo here; busybox sleep 86321\n"))
        .await
        .unwrap();
    let waiting = b.pipeline.submit(b.wish("other", "FROM busybox:1\n")).await.unwrap();
    loop {
        match tokio::time::timeout(Duration::from_secs(60), news.recv()).await.unwrap().unwrap() {
            Notice::Line { id, line } if id == long.id && line == "here" => break,
            Notice::Run(r) => assert!(!r.state.is_over(), "{r:?}"),
            Notice::Line { .. } => {}
        }
    }
    assert!(waiting.reason.unwrap().contains("1 of at most 1 run"));
    let gone = b.pipeline.cancel(&waiting.id, "bob").await.unwrap();
    assert_eq!(
        (gone.state, gone.reason.as_deref()),
        (RunState::Cancelled, Some("cancelled by bob"))
    );
    b.pipeline.cancel(&long.id, "bob").await.unwrap();
    let run = b.pipeline.finished(&long.id).await.unwrap();
    assert_eq!((run.state, run.reason.as_deref()), (RunState::Cancelled, Some("cancelled by bob")));
    none_left("86321").await;
    assert_eq!(std::fs::read_dir(b.dir.path().join("state/runs")).unwrap().count(), 0);
    assert!(matches!(b.pipeline.cancel(&long.id, "bob").await, Err(Refused::Over { .. })));
}

#[tokio::test]
async fn a_build_that_takes_too_long_ends_and_a_restart_is_owned_up_to() {
    let b = bench(|s| s.deadline = Duration::from_secs(4)).await;
    let run = b.build(b.wish("slow", "FROM busybox:1\nRUN busybox sleep 86322\n")).await;
    assert_eq!(run.state, RunState::Failed);
    assert!(run.reason.unwrap().starts_with("took longer than the limit of 4s; last: builds with"));
    none_left("86322").await;
    // What a crash leaves behind: a record that is not over, and a directory.
    let mut left = b.keep.saved.lock().unwrap()[0].clone();
    left.id = "run-01arz3ndektsv4rrffq69g5fav".parse().unwrap();
    left.state = RunState::Running;
    b.keep.saved.lock().unwrap().push(left.clone());
    let state = b.dir.path().join("state");
    std::fs::create_dir(state.join("runs/x")).unwrap();
    b.pipeline.close().await;
    let closed = b.pipeline.submit(b.wish("x", "FROM busybox:1\n")).await;
    assert!(matches!(closed, Err(Refused::Closing)));
    let again = Pipeline::new(PipelineSettings::new(&state), b.shelf.clone(), b.keep.clone())
        .await
        .unwrap();
    let found = again.get(&left.id).unwrap();
    assert_eq!(found.state, RunState::Failed);
    assert!(found.reason.unwrap().contains("restarted while it ran"));
    assert!(!state.join("runs/x").exists());
    assert_eq!(again.verifying_key(), b.pipeline.verifying_key());
}

#[tokio::test]
async fn git_repositories_and_uploads_are_built_too() {
    let b = bench(|s| s.git.protocols.push(Protocol::File)).await;
    let folder =
        b.folder("repo", &[("app/Dockerfile", "FROM busybox:1\nCOPY f /f\n"), ("app/f", "one")]);
    let git = "git init -q; git add .; git -c user.name=a -c user.email=a@b commit -qm x; git rev-parse HEAD";
    let out = Command::new("sh").args(["-euc", git]).current_dir(&folder).output().unwrap();
    let commit = String::from_utf8(out.stdout).unwrap().trim().to_owned();
    let source = Source::Git {
        url: format!("file://{}", folder.display()),
        reference: None,
        folder: Some("app".into()),
    };
    let run = b.built(Request::new(source, "ada")).await;
    assert_eq!(run.reference(), format!("staging/app:{}", &commit[..12]));
    assert_eq!((run.commit.as_ref(), run.dirty), (Some(&commit), false));
    // The same folder, changed: said in the record and in the tag.
    std::fs::write(folder.join("app/f"), "two").unwrap();
    let mut wish = Request::new(Source::Folder(folder.clone()), "ada");
    wish.dockerfile = Some("app/Dockerfile".into());
    let run = b.build(wish).await;
    assert!(run.dirty && run.tag == format!("{}-dirty", &commit[..12]), "{run:?}");

    let tar =
        Command::new("tar").arg("-czC").arg(folder.join("app")).arg(".").output().unwrap().stdout;
    let upload = b.pipeline.receive("web.v2", std::io::Cursor::new(tar.clone())).await.unwrap();
    let run = b.built(Request::new(Source::Upload(upload), "ada")).await;
    assert_eq!(run.name, "web-v2");
    assert_eq!(b.shelf.file(&run.image_digest.unwrap(), "f").as_deref(), Some("two"));
    let broken = b.pipeline.receive("x", std::io::Cursor::new(tar[..tar.len() / 2].to_vec())).await;
    assert!(broken.is_err());
    let uploads = b.dir.path().join("state/uploads");
    // The last hold of an upload goes with its run's task.
    b.pipeline.close().await;
    assert_eq!(std::fs::read_dir(uploads).unwrap().count(), 0);
}
