use super::*;
use proptest::prelude::*;

fn names(text: &str) -> Vec<String> {
    let none = BTreeMap::new();
    let file = read(text.as_bytes(), &none).unwrap_or_else(|e| panic!("{e}\n{text}"));
    file.bases.into_iter().map(|b| b.name).collect()
}

fn error(text: &str) -> String {
    read(text.as_bytes(), &BTreeMap::new()).unwrap_err().to_string()
}

#[test]
fn every_image_from_outside_is_listed_once_in_order() {
    for (text, want) in [
        ("FROM debian:12", &["debian:12"][..]),
        ("from  debian:12 as x\nFROM x\n", &["debian:12"]),
        ("FROM a AS One\nFROM oNE\nCOPY --from=ONE / /\nCOPY --from=0 / /\n", &["a"]),
        ("FROM scratch\nCOPY --from=b:1 /x /x\n", &["b:1"]),
        ("FROM a\nCOPY --chown=1:1 --from=b --link /x /x\nFROM b\n", &["a", "b"]),
        ("FROM a\nCOPY --from=7 /x /x\n", &["a", "7"]),
        ("FROM --platform=$BUILDPLATFORM a AS b\n", &["a"]),
        ("# x\n\n  # FROM no\nFROM \\\n# inside\n\n  a \\\n AS b\nFROM b", &["a"]),
        ("FROM deb\\\nian:12\n", &["debian:12"]),
        ("# escape=`\nFROM `\n a\nRUN dir c:\\\nFROM b\n", &["a", "b"]),
        ("#syntax=docker/dockerfile:1\n# escape = `\nFROM a`\n:1\n", &["a:1"]),
        ("# a comment first\n# escape=`\nFROM a\\\n:1\n", &["a:1"]),
        ("ARG V=12\nARG N=debian:${V}-slim W\nFROM $N\n", &["debian:12-slim"]),
        ("ARG A\nFROM ${A:-x:1}\nFROM ${A-y}\nFROM z${A:+no}\n", &["x:1", "y", "z"]),
        ("ARG A=\nFROM ${A:-x}\nFROM b${A-no}\n", &["x", "b"]),
        ("ARG A=q\nFROM ${A:+y}${A+z}\nFROM ${B:-${A:-n}}\n", &["yz", "q"]),
        ("ARG A='$B' C=\"d e\"\nFROM \"f:1\"\n", &["f:1"]),
        ("FROM a\nARG V=1\nRUN --mount=type=bind,from=b:2,target=/x true\n", &["a", "b:2"]),
        ("FROM a\nRUN <<EOF cat\nFROM no\nEOF\nFROM b\n", &["a", "b"]),
        ("FROM a\nRUN <<-'E1' <<E2\n\tE1\nFROM no\nE2\nCOPY --from=c . .\n", &["a", "c"]),
        ("FROM a\r\nCOPY --from=b \\\r\n x y\r\n", &["a", "b"]),
        ("FROM a\nONBUILD RUN x\nLABEL x=\"FROM q\"\nRUN echo \\\nFROM no\n", &["a"]),
        ("\u{feff}FROM a", &["a"]),
        ("FROM example.org:5000/x/y@sha256:00 AS a\n", &["example.org:5000/x/y@sha256:00"]),
    ] {
        assert_eq!(names(text), want, "{text}");
    }
}

#[test]
fn a_build_argument_wins_over_the_default_of_arg_and_only_there() {
    let given =
        BTreeMap::from([("V".to_owned(), "13".to_owned()), ("X".to_owned(), "n".to_owned())]);
    let text = b"ARG V=12\nFROM debian:$V\nFROM y$X\n";
    let names: Vec<String> =
        read(text, &given).unwrap().bases.into_iter().map(|b| b.name).collect();
    assert_eq!(names, ["debian:13", "y"]);
}

#[test]
fn what_cannot_be_followed_is_refused_with_its_line() {
    assert_eq!(error("# nothing\n").split(':').next().unwrap(), "the Dockerfile has no FROM");
    for (text, want) in [
        ("FROM\n", "line 1: FROM names no image"),
        ("\nFROM $NO\n", "line 2: \"$NO\" is empty"),
        ("FROM a b c\n", "line 1: after the image only 'AS NAME'"),
        ("FROM a\n\nCOPY --from=$X . .\n", "line 3: from=$X: name the stage"),
        ("FROM ${X#y}\n", "is not understood"),
        ("FROM ${X\n", "is not closed"),
        ("FROM \"a\n", "a quote in"),
        ("ARG a-b=1\nFROM a\n", "line 1: ARG \"a-b\""),
    ] {
        let said = error(text);
        assert!(said.contains(want), "{text}: {said}");
    }
    let long = "ARG A=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n".to_owned()
        + &(0..200).map(|_| "ARG A=$A$A\n").collect::<String>();
    assert!(error(&long).contains("longer than 4096"), "{}", error(&long));
    assert!(error(&"FROM a\n".repeat(101)).contains("stages"));
    assert!(matches!(
        read(&vec![b' '; LARGEST + 1], &BTreeMap::new()),
        Err(DockerfileError::TooLarge(_))
    ));
    assert!(matches!(read(b"FROM \xff", &BTreeMap::new()), Err(DockerfileError::NotText(5))));
}

#[test]
fn exact_names_replace_the_images_and_nothing_else() {
    let text = "# syntax=docker/dockerfile:1\n# escape=`\nARG V=1\nFROM  --platform=x  a:$V`\n-s  AS b # x\n\
                FROM b\nCOPY --from=c:1 --chown=0 x y\nRUN --mount=type=bind,from=a:1-s,target=/m true\nCOPY --from=b z z";
    let none = BTreeMap::new();
    let file =
        read(text.replace(" # x", "").as_bytes(), &none).map(|f| f.rewritten(|n| format!("<{n}>")));
    assert_eq!(
        file.unwrap(),
        "# escape=`\nARG V=1\nFROM  --platform=x  <0>  AS b\n\
         FROM b\nCOPY --from=<1> --chown=0 x y\nRUN --mount=type=bind,from=<0>,target=/m true\nCOPY --from=b z z"
    );
}

#[test]
fn downloads_of_add_are_seen() {
    let none = BTreeMap::new();
    let text = b"FROM a\nADD x /x\nADD --checksum=y https://h/f /f\nADD [\"http://h/g\", \"/g\"]\nADD git@h:x.git /y\n";
    let lines: Vec<usize> = read(text, &none).unwrap().downloads.iter().map(|d| d.line).collect();
    assert_eq!(lines, [3, 4, 5]);
}

proptest! {
    #[test]
    fn no_text_panics(text in "(FROM|ARG|COPY|RUN|ADD|#|escape=`|--from=|--mount=|from=|,|\\$|\\{|\\}|:-|\\\\|`|<<E|E|\"|'|AS|=| |\n|\r|é|a|1){0,60}") {
        let none = BTreeMap::new();
        if let Ok(file) = read(text.as_bytes(), &none) {
            // With the names as they were, words stay as they are unless they
            // were continued over lines or made of variables.
            let again = file.rewritten(|n| file.bases[n].name.clone());
            if !text.contains(['$', '\\', '`', '"', '\'']) {
                prop_assert_eq!(again, text);
            }
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&bytes, &BTreeMap::new());
    }

    /// Rewritten to digests, a file names exactly these.
    #[test]
    fn what_was_rewritten_reads_as_rewritten(images in proptest::collection::vec("[a-z]{1,5}(:[0-9]{1,2})?", 1..6)) {
        let text: String = images.iter().map(|i| format!("FROM {i}\nCOPY --from={i} a b\n")).collect();
        let none = BTreeMap::new();
        let file = read(text.as_bytes(), &none).unwrap();
        let exact = file.rewritten(|n| format!("oci:/x/{n}"));
        let after = read(exact.as_bytes(), &none).unwrap();
        let want: Vec<String> = (0..file.bases.len()).map(|n| format!("oci:/x/{n}")).collect();
        prop_assert_eq!(after.bases.into_iter().map(|b| b.name).collect::<Vec<_>>(), want);
    }
}
